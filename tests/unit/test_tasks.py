"""The seam to doit: the command line's variables, and errors that end a run in words."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.exceptions import TaskFailed

from fcbuild import tasks
from fcbuild.build import foreign
from fcbuild.errors import BuildError, SpecError, StoreError, ToolMissing
from fcbuild.reporter import LineReporter
from fcbuild.store import Artifact, link
from fcbuild.tasks import action, command_line, commands
from fcbuild.verify import Receipt
from fcbuild.vmm.firecracker import Firecracker
from fcbuild.vmm.firecracker_machine import FirecrackerVmm
from fcbuild.vmm.native import NativeHost


@pytest.mark.parametrize(
    "argv",
    [
        *([], ["build", "image=x"], ["kvm=native", "boot"], ["boot", "--mem=1", "-n", "2"]),
        ["boot", "instance=web-2.toml"],
    ],
)
def test_known_variables_are_taken(argv: list[str]) -> None:
    command_line.check_variables(argv)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("imgae=x", "unknown variable imgae (did you mean image?)"),
        ("zzz=x", "unknown variable zzz"),
        ("=x", "unknown variable "),
        ("Image=x", "did you mean image?"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused(word: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        command_line.check_variables(["build", word])
    assert said in caught.value.message.replace("=", "")
    assert "image=" in str(caught.value.hint)


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_an_error_of_ours_is_doits_failure() -> None:
    result = action.act(failing(BuildError("what", hint="do")))
    assert isinstance(result, TaskFailed)
    assert result.message == "error: what\n  hint: do"


def test_any_other_error_is_a_bug() -> None:
    with pytest.raises(ZeroDivisionError):
        action.act(failing(ZeroDivisionError()))


def test_a_result_is_handed_on() -> None:
    assert action.act(lambda a: {"state": a}, "built") == {"state": "built"}


def test_an_error_while_asking_means_not_up_to_date() -> None:
    assert action.asked(lambda: True)
    assert not action.asked(lambda: False)

    def fail() -> bool:
        raise StoreError("damaged")

    assert not action.asked(fail)


@pytest.fixture
def doit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run doit in this process, with our reporter; return its status and what it said."""

    def run(*actions: Callable[[], Any]) -> tuple[int, str]:
        def creator() -> Any:
            for number, work in enumerate(actions):
                yield {
                    "name": str(number),
                    "actions": [lambda work=work: action.act(work)],
                    "io": {"capture": False},
                    "verbosity": 2,
                }

        namespace = {
            "task_x": creator,
            "DOIT_CONFIG": {
                "dep_file": str(tmp_path / "doit.db"),
                "backend": "json",
                "reporter": LineReporter,
                "verbosity": 0,
            },
        }
        out = tmp_path / "out"
        status: int = DoitMain(ModuleTaskLoader(namespace)).run(["run", "-o", str(out)])
        return status, capfd.readouterr().err + out.read_text()

    return run


Doit = Callable[..., tuple[int, str]]


def test_a_failed_task_is_told_in_words_and_ends_with_1(doit: Doit) -> None:
    status, said = doit(failing(BuildError("the kernel is bad", hint="fix it")))
    assert status == 1
    assert said == "failed   x:0\nerror: the kernel is bad\n  hint: fix it\n"


def test_a_bug_keeps_its_traceback(doit: Doit) -> None:
    status, said = doit(failing(ZeroDivisionError("our bug")))
    assert status != 0
    assert "ZeroDivisionError: our bug" in said


def test_a_finished_task_is_one_line(doit: Doit) -> None:
    status, said = doit(lambda: {"state": "built", "note": "0123456789ab"}, lambda: None)
    assert (status, said) == (0, "built    x:0  0123456789ab\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_unwinds_like_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    import sys

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    tasks.interruptible()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        for other, handler in before.items():
            signal.signal(other, handler)


@pytest.fixture
def project(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tasks.Project]:
    def project(**variables: str) -> tasks.Project:
        monkeypatch.setattr("sys.argv", ["doit"])
        for module in ("project", "commands", "command_line"):
            monkeypatch.setattr(f"fcbuild.tasks.{module}.get_var", variables.get)
        monkeypatch.setenv("FCBUILD_STORE", str(checkout / "store"))
        return tasks.Project(checkout, default_image="web")

    return project


Make = Callable[..., tasks.Project]


def test_build_takes_all_images_and_only_their_kernels(project: Make) -> None:
    assert project().build()["task_dep"] == ["kernel:6.12", "rootfs:tool", "rootfs:web"]


def test_a_build_with_nothing_to_do_leaves_doit_nothing_to_note(
    project: Make, tmp_path: Path
) -> None:
    def stored(*names: str) -> Callable[[], Any]:
        return lambda: ({"name": n, "actions": ["false"], "uptodate": [True]} for n in names)

    database = tmp_path / "doit.json"
    tasks = {
        "task_build": project().build,
        "task_kernel": stored("6.12"),
        "task_rootfs": stored("tool", "web"),
        "DOIT_CONFIG": {"dep_file": str(database), "backend": "json", "reporter": LineReporter},
    }
    assert DoitMain(ModuleTaskLoader(tasks)).run(["build"]) == 0
    assert database.read_text() == "{}"


def test_build_of_a_base_that_is_named_makes_its_image(project: Make) -> None:
    assert project(image="base").build()["task_dep"] == ["_image:base"]


@pytest.fixture
def arm(checkout: Path) -> None:
    """Make `tool` an image for 64-bit ARM."""
    toml, kernel = checkout / "images/tool/image.toml", checkout / "kernels/6.12/kernel.toml"
    toml.write_text('arch = "aarch64"\n' + toml.read_text())
    kernel.write_text('arch = ["x86_64", "aarch64"]\n' + kernel.read_text())


def test_a_kernel_for_what_cannot_be_built_here_is_left_out_too(
    project: Make, arm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rootfses = ["rootfs:tool", "rootfs:web"]
    both = ["kernel:6.12", "kernel:6.12@aarch64"]
    for why, kernels in ((None, both), ("no emulator", both[:1])):
        found = {"x86_64": None, "aarch64": why}
        monkeypatch.setattr(foreign, "trouble", found.get)
        assert project().build()["task_dep"] == [*kernels, *rootfses]
    assert project(image="tool").build()["task_dep"] == ["kernel:6.12@aarch64", "rootfs:tool"]


def test_a_boot_on_64_bit_arm_needs_no_kvm_host(project: Make, arm: None) -> None:
    made = project(image="tool", kvm="emulated")
    assert made.boot()["task_dep"] == ["kernel:6.12@aarch64", "rootfs:tool"]
    with pytest.raises(ToolMissing, match="kvm=native, but an image for aarch64"):
        commands.vmm_for(project(image="tool", kvm="native"), "aarch64")


def test_pid_1_is_made_for_each_architecture(project: Make, arm: None) -> None:
    assert [task["basename"] for task in project().inits()] == ["_init", "_init@aarch64"]
    setups = {task["name"]: task["setup"] for task in project().rootfses()}
    assert "_init@aarch64" in setups["tool"] and "_init" in setups["web"]


def test_boot_takes_the_default_image_or_the_named(project: Make) -> None:
    assert project().to_boot == ["web"]
    made = project(image="tool", kvm="native")
    assert made.to_boot == ["tool"]
    assert made.boot()["task_dep"] == ["kernel:6.12", "rootfs:tool"]


def test_an_emulated_host_is_built_when_it_is_asked_for(project: Make, checkout: Path) -> None:
    assert {"kernel:kvm-host", "_agent"} <= set(project(kvm="emulated").boot()["task_dep"])


def test_a_kvm_that_is_none_is_refused(project: Make) -> None:
    with pytest.raises(SpecError, match=r"kvm=nativ: expected native or emulated.*native\?"):
        project(kvm="nativ")


def test_a_from_that_cannot_be_is_refused_before_anything_runs(
    project: Make, checkout: Path
) -> None:
    (checkout / "images/web/Dockerfile").write_text("FROM fcbuild/bsae\n")
    with pytest.raises(SpecError, match="no images/bsae"):
        project()


def test_an_image_upon_another_is_built_after_it(project: Make) -> None:
    edges = {task["name"]: task["setup"] for task in project().images()}
    assert edges == {"base": [], "tool": [], "web": ["_image:base"]}


@pytest.mark.parametrize(("ci", "refused"), [("", False), ("true", True)])
def test_in_ci_what_is_not_locked_is_not_up_to_date(
    project: Make, monkeypatch: pytest.MonkeyPatch, ci: str, refused: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("FCBUILD_LOCKED", "")
    made = project()
    assert made.refused("web") is made.refused("base") is refused
    assert not made.refused("tool")  # it stands on nothing
    monkeypatch.setattr(made.store, "find", lambda recipe: Artifact("", "", "", Path(), {}, {}))
    monkeypatch.setattr("fcbuild.tasks.project.links_to", lambda *args: True)
    current = {task["name"]: task["uptodate"][0]() for task in made.rootfses()}
    assert current == {"tool": True, "web": not refused}


def test_a_checkout_is_known_to_the_store_that_it_links_to(project: Make, checkout: Path) -> None:
    made = project()
    recipe = made.plan.rootfs("tool")
    artifact, _ = made.store.obtain(recipe, lambda stage: stage.file("rootfs.ext4").touch())
    at = checkout / "artifacts" / "images" / "tool.ext4"
    link(artifact, "rootfs.ext4", at)
    (task,) = (task for task in made.rootfses() if task["name"] == "tool")
    assert task["uptodate"][0]()
    (root,) = made.store.roots()
    assert root.read_text() == str(checkout / "artifacts")


@pytest.mark.parametrize(("variable", "value"), [("age", "soon"), ("size", "20")])
def test_a_policy_that_is_none_is_refused(
    project: Make, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    made = project(**{variable: value})
    (collect,) = made.gc(dry_run=True, as_json=False)["actions"]
    assert f"{variable}={value}: expected a" in str(collect())


def receipt(**fields: Any) -> Receipt:
    artifact = Artifact("x", "x", "f" * 64, Path(), {}, {})
    vmm = FirecrackerVmm(NativeHost(), Firecracker(Path(), "1.12.1"))
    return Receipt("web", "x86_64", artifact, artifact, vmm, **fields)


BOOTED = {"start_to_exec": 900, "start_to_init": 800, "total": 2000}


def test_the_outcome_of_a_boot_is_a_line_for_each_thing() -> None:
    lines = commands.outcome(
        receipt(
            timings={**BOOTED, "exec_to_ready": 2345, "exec_to_healthy": 31_010},
            checks=[{"title": "log /x/", "detail": "found: x"}],
            exit={"code": 0, "signal": 0, "reason": "stopped"},
        )
    )
    assert list(lines) == [
        "boot      900 ms from InstanceStart to the entrypoint (800 ms to PID 1), 2000 ms in all",
        "ready     2.3 s after exec",
        "health    healthy after 31.0 s",
        "check     passed: log /x/: found: x",
        "exit      0 (stopped)",
    ]


def test_what_an_image_does_not_have_is_no_line() -> None:
    assert len(list(commands.outcome(receipt(timings=BOOTED)))) == 1
