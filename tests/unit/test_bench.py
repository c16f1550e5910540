"""The benchmarks: what they read off a console, and how they judge."""

from __future__ import annotations

import json

import pytest

from bench import boot, pipeline
from bench.boot import Boot, Result
from fcbuild.errors import FcBuildError

CONSOLE = """\
[    0.009662] PCI: Fatal: No config space access function found
[    0.027919] bench: exec  boottime 0027644126
[    0.028719] bench: init 26322 boottime 0028443843
[    0.028770] bench: start 26400 boottime 0028493843
[    0.028821] bench: peak 192 boottime 0028545468
[    0.028834] bench: resident 188 boottime 0028558728
[    0.028885] bench: exit  boottime 0028609186
[    1.038824] reboot: Restarting system
"""


def test_a_console_is_read() -> None:
    assert boot.read_console(CONSOLE) == Boot(
        init=26_322,
        start=26_400,
        exec=27_919,
        exit=28_885,
        restart=1_038_824,
        resident=188,
        peak=192,
        boottime=28_609 - 28_885,
    )


@pytest.mark.parametrize("lost", ["bench: exec", "bench: init", "bench: exit", "Restarting"])
def test_a_boot_that_is_not_whole_is_an_error(lost: str) -> None:
    lines = [line for line in CONSOLE.splitlines() if lost not in line]
    with pytest.raises(FcBuildError, match="did not come to its end") as error:
        boot.read_console("\n".join(lines))
    assert lines[-1] in str(error.value)


def result(kvm: str, *, fcbuild: int, mounts: int, shell: int, end: int = 0) -> Result:
    """A result in which each arm took so many microseconds from PID 1 to exec."""

    def took(*times: int) -> list[Boot]:
        return [Boot(900, 1000, 1000 + time, 9000, 9000 + time, 1, 1, 0) for time in times]

    return Result(
        kvm,
        1,
        {
            "fcbuild": took(1, fcbuild, 9 * fcbuild),
            "mounts": took(8 * mounts, 1, mounts),
            "direct": took(1, 2, 3),
            "shell": took(9 * shell, shell, shell),
        },
        [{boot.TO_END: end}, {boot.TO_END: end}],
    )


def test_a_boot_without_the_program_that_reads_all_starts_with_the_kernels_line() -> None:
    found = boot.read_console(
        "\n".join(line for line in CONSOLE.splitlines() if ": start" not in line)
    )
    assert found.spans == {
        boot.TO_INIT: 26_322,
        boot.TO_EXEC: 27_919 - 26_322,
        boot.TO_END: 1_038_824 - 28_885,
    }


@pytest.mark.parametrize(
    ("made", "met"),
    [
        (result("emulated", fcbuild=150, mounts=100, shell=750), [True, True]),
        (result("emulated", fcbuild=151, mounts=100, shell=750), [False, False]),
        (result("native", fcbuild=1, mounts=1, shell=5, end=100_000), [True, True, True]),
        (result("native", fcbuild=1, mounts=1, shell=5, end=100_001), [True, True, False]),
    ],
)
def test_targets_are_held_by_the_medians(made: Result, met: list[bool]) -> None:
    assert [target.met for target in made.targets()] == met
    assert [line.endswith("met") for line in made.lines()][-len(met) :] == met
    assert [target["met"] for target in json.loads(json.dumps(made.document()))["targets"]] == met


def test_a_ratio_is_that_of_pairs_and_not_of_sums() -> None:
    found = pipeline.ratio("x / y", [2.0, 30.0, 9.0], [1.0, 10.0, 1.0], 2.5)
    assert (found.value, found.good) == (3.0, False)
    shown = " ".join(pipeline.line(found).split())
    assert shown == "x / y 3.00 times at most 2.5: MISSED (9.00 s / 1.00 s)"
    assert pipeline.ratio("x / y", [2.0], [1.0], 2.0).good


def test_what_has_no_target_is_only_shown() -> None:
    found = pipeline.Finding("cold", 1.5, "s")
    assert found.good and pipeline.line(found).split() == ["cold", "1.50", "s"]
