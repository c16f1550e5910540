"""The benchmark of kernels: what it reads off a console, how it judges, what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import groups
from bench.counted import Count, read_host
from bench.kernel import THEIRS, Kernel, lines, ours, targets
from bench.trees import PAGE, content
from fcbuild.errors import FcBuildError

CONSOLE = """\
host: program 1795549935425595882
host: end 1795549935671922464
host| @
host| guest: tsc 153508020
host| guest: free 103264
host| 2026-11-24T19:52:15.271685365 [anonymous-instance:main] event_start: build microvm for boot
host| 2026-11-24T19:52:15.309417110 [anonymous-instance:main] event_end: build microvm for boot
host| 2026-11-24T19:52:15.309425275 [anonymous-instance:main] event_start: boot microvm
"""


def test_a_console_says_what_the_boot_took() -> None:
    assert read_host(CONSOLE) == Count(load=37_739_910, boot=116_170_607, free=103_264)


@pytest.mark.parametrize(
    "lost", ["host: program 1795549935425595882", "guest: free", "event_start: boot microvm"]
)
def test_a_boot_that_did_not_come_to_its_end_is_no_sample(lost: str) -> None:
    with pytest.raises(FcBuildError):
        read_host(CONSOLE.replace(lost, "host: program 0" if "program" in lost else "?"))


def kernels(directory: Path, micro: int, default: int, theirs: int) -> dict[str, Kernel]:
    found = {}
    names = ours("6.12")
    for name, boot in ((names["micro"], micro), (names["default"], default), (THEIRS, theirs)):
        path = directory / name.replace("/", "-")
        path.write_bytes(bytes(boot - 1) + b"x")
        found[name] = Kernel(name, path, [boot, boot], [boot], [1], [boot], free_kib=boot * 1024)
    return found


def test_targets_are_ratios_to_firecrackers_own_kernel(tmp_path: Path) -> None:
    held = {target.what: target.met for target in targets(kernels(tmp_path, 25, 51, 100), "6.12")}
    assert held == {
        "6.12/micro: boot, at most 0.25 times theirs": True,
        "6.12: boot, at most 0.5 times theirs": False,
        "6.12/micro: size, at most 0.3 times theirs": True,
        "6.12: size, at most 0.6 times theirs": True,
        "6.12/micro: MiB free, at least 14 more": False,
    }


def test_a_kernel_that_cannot_be_had_is_named_with_the_reason(tmp_path: Path) -> None:
    found = kernels(tmp_path, 2, 3, 4)
    del found[THEIRS]
    text = list(lines(found, {THEIRS: "no source has it"}, [], 1))
    assert f"{THEIRS} is left out: no source has it" in text
    assert list(targets(found, "6.12")) == []


def test_a_group_left_out_stays_out(tmp_path: Path) -> None:
    fragments = ["CONFIG_A=y\nCONFIG_B=y\n", "# a comment\nCONFIG_C=y"]
    assert groups._without(fragments, ["B", "C"]) == [
        "CONFIG_A=y",
        "# a comment",
        "# CONFIG_B is not set",
        "# CONFIG_C is not set",
    ]


def test_a_fragments_part_for_one_series_goes_with_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("base.config", "bpf.config", "bpf@6.12.config")]
    for path, text in zip(paths, ("A=y", "B=y", "C=y"), strict=True):
        path.write_text(f"CONFIG_{text}\n# CONFIG_D is not set\n")
    found = groups._groups(paths)
    assert found["bpf"] == ["B", "C"]
    assert "base" not in found


def test_pages_of_one_byte_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(3 * PAGE) + b"\xcc" * PAGE + b"ab" * PAGE + bytes(10))
    assert content(path) == 2 * PAGE
