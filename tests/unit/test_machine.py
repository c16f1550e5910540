"""Machine against a stand-in for Firecracker: the way to the program, back, and every failure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import (
    ApiError,
    BootFailed,
    BootTimeout,
    GuestExited,
    GuestPanic,
    VmmError,
)
from fcbuild.vmm import config, machine
from fcbuild.vmm.config import MicroVm
from fcbuild.vmm.firecracker_machine import FirecrackerMachine
from fcbuild.vmm.machine import Exit, Health, Machine
from fcbuild.vmm.native import NativeHost
from tests import fakes
from tests.fakes import BOOT, SERVICE, STOPPED, Act, Step, end, event, health

DEADLINE_S = 20.0
SOON_S = 0.3  # for what never comes

HANG: Step = ["hang"]

Make = Callable[..., FirecrackerMachine]


def soon() -> float:
    return time.monotonic() + SOON_S


def in_time() -> float:
    return time.monotonic() + DEADLINE_S


@pytest.fixture
def make(tmp_path: Path, short_dir: Path) -> Make:
    """Make a machine whose Firecracker does as told."""
    for name in ("vmlinux", "rootfs.ext4"):
        (tmp_path / name).touch()

    def make(
        guest: Sequence[Step] = (), vm: dict[str, Any] | None = None, **act: Any
    ) -> FirecrackerMachine:
        given = MicroVm(
            kernel=tmp_path / "vmlinux",
            rootfs=tmp_path / "rootfs.ext4",
            vcpus=1,
            memory_mib=64,
            **(vm or {}),
        )
        firecracker = fakes.install(tmp_path, Act(guest=guest, **act))
        return FirecrackerMachine(NativeHost(), given, firecracker=firecracker, run_dir=short_dir)

    return make


def pid(vm: Machine) -> int:
    assert vm._process is not None
    return vm._process.pid


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_service_boots_and_is_stopped(make: Make, short_dir: Path) -> None:
    with make(SERVICE) as vm:
        vm.start(in_time())
        assert vm.version == fakes.VERSION
        assert vm.stage in {"kernel", "init", "mounted", "exec"}
        vm.wait_for("exec", in_time())
        assert vm.stage == "exec"
        assert not vm.ended
        vm.stop(in_time())
        assert vm.ended
        assert vm.exit == Exit(code=0, signal=0)
        process = pid(vm)
    assert not alive(process)
    names = [event.name for event in vm.events]
    assert names == ["init", "mounted", "exec", "stopping", "exit", "end"]
    assert vm.stage == "end"
    times = vm.timings
    moments = [times.begun, times.api, times.configured, times.started]
    assert moments == sorted(moments)
    assert times.begun > 0
    calls = [json.loads(call) for call in (short_dir / "calls.jsonl").read_text().splitlines()]
    assert calls == [[path, body] for path, body in vm.config.calls()]


def test_a_program_that_ends_by_itself(make: Make) -> None:
    out, err = "hello\n", "warning\n"
    steps = [
        *BOOT,
        ["print", out],
        ["print", err, fakes.STDERR],
        *end(code=3, stdout=len(out), stderr=len(err)),
    ]
    with make(steps) as vm:
        vm.start(in_time())
        vm.wait_for_end(in_time())
        assert vm.exit == Exit(code=3, signal=0)
        assert sorted(vm.take_output()) == ["hello", "warning"]
        vm.stop(in_time())  # there is nothing left to stop


def test_output_that_is_counted_is_read_before_the_link_closes(make: Make) -> None:
    lines = 20_000
    text = "x" * 49 + "\n"
    steps = [*BOOT, ["print", text * lines], *end(stdout=len(text) * lines)]
    with make(steps) as vm:
        vm.start(in_time())
        vm.wait_for_end(in_time())
    assert len(vm.take_output()) == lines
    assert vm.output_log.stat().st_size == len(text) * lines


def test_an_exit_without_an_end_event_is_accepted(make: Make) -> None:
    steps = [*BOOT, *end(code=5)[:1], ["leave", 0]]
    with make(steps) as vm:
        vm.start(in_time())
        vm.wait_for_end(in_time())
        assert vm.exit == Exit(code=5, signal=0)


def test_a_refusal_of_the_api_shows_the_fault(make: Make) -> None:
    with make(refuse={"/boot-source": "The kernel file cannot be opened"}) as vm:
        with pytest.raises(ApiError, match="The kernel file cannot be opened") as caught:
            vm.start(in_time())
        process = pid(vm)
    assert caught.value.path == "/boot-source"
    assert not alive(process)


def test_a_drive_that_is_missing_is_refused_by_firecracker(make: Make, tmp_path: Path) -> None:
    (tmp_path / "rootfs.ext4").unlink()
    with make() as vm, pytest.raises(ApiError, match="Unable to open the block device"):
        vm.start(in_time())


def test_a_firecracker_that_ends_at_once_says_why(make: Make) -> None:
    vm = make(dies_with="Error: RunWithApi: bad seccomp filter")
    with vm, pytest.raises(GuestExited, match="waiting for the API socket") as caught:
        vm.start(in_time())
    assert caught.value.console == ("Error: RunWithApi: bad seccomp filter",)
    assert caught.value.stage == "kernel"


def test_a_firecracker_that_is_no_program_ends_too(make: Make, tmp_path: Path) -> None:
    vm = make()
    (tmp_path / "firecracker").unlink()
    with vm, pytest.raises(GuestExited) as caught:
        vm.start(in_time())
    assert "No such file" in "".join(caught.value.console)


def test_an_api_socket_that_never_opens_is_a_timeout(make: Make) -> None:
    with make(socket=False) as vm:
        with pytest.raises(BootTimeout, match="API socket did not come up"):
            vm.start(soon())
        process = pid(vm)
        assert alive(process)
    assert not alive(process)


def test_an_api_call_that_hangs_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DYING_S", 0.1)
    with make(hang="/vsock") as vm, pytest.raises(VmmError, match="did not answer PUT /vsock"):
        vm.start(time.monotonic() + 1.0)


def test_a_firecracker_that_dies_in_a_call_is_an_end(make: Make) -> None:
    with make(die="/vsock") as vm, pytest.raises(GuestExited, match="starting the guest"):
        vm.start(in_time())


PANIC = "Kernel panic - not syncing: No working init found."


@pytest.mark.parametrize("trace", [0, 60], ids=["bare", "with a call trace"])
def test_a_panic_is_told_as_one(make: Make, trace: int) -> None:
    steps = [
        ["console", "VFS: Mounted root"],
        ["console", f"[    0.5] {PANIC}"],
        *(["console", f"Call trace, line {number}"] for number in range(trace)),
        ["leave", 0],
    ]
    with make(steps) as vm:
        vm.start(in_time())
        with pytest.raises(GuestPanic, match=PANIC) as caught:
            vm.wait_for("exec", in_time())
    assert caught.value.stage == "kernel"
    assert any(PANIC in line for line in caught.value.console)
    assert len(caught.value.console) <= machine.CONSOLE_LINES
    assert str(caught.value.run_dir) in str(caught.value)


@pytest.mark.parametrize(("count", "stage"), [(0, "kernel"), (1, "init"), (2, "mounted")])
def test_a_vm_that_ends_too_early_tells_the_last_stage(make: Make, count: int, stage: str) -> None:
    with make([*BOOT[:count], ["console", "last words"], ["leave", 1]]) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match="the VM ended while waiting for 'exec'") as caught:
            vm.wait_for("exec", in_time())
    assert caught.value.stage == stage
    assert caught.value.console == ("last words",)
    assert f"last stage reached: {stage}" in str(caught.value)


def test_a_program_that_cannot_be_executed_tells_its_status(make: Make) -> None:
    with make([*BOOT[:2], *end(code=127)]) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match="the program ended with status 127"):
            vm.wait_for("exec", in_time())


def test_a_fail_event_tells_stage_and_error(make: Make) -> None:
    steps = [BOOT[0], event("fail", stage="init", reason="root", error="no \x1b[2J/proc\n"), HANG]
    with make(steps) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match=r"PID 1 gave up at init \(root\): no \[2J/proc "):
            vm.wait_for("exec", in_time())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([["raw", "garbage\n"]], "not an event: b'garbage'"),
        ([["raw", "[1, 2]\n"]], "not an event"),
        ([["raw", "x" * 5000 + "\n"]], "not an event: b'xxx"),
        ([["raw", "x" * 300_000]], "not an event: b'xxx"),
        ([["raw", '{"event": "x", "t": 1}\n', 10_001]], "more than 10000 events"),
        (
            [event("exit", code="0", signal=0, oom=False)],
            "an exit event without code, signal and oom",
        ),
        (
            [event("exit", code=256, signal=0, oom=False)],
            "an exit event without code, signal and oom",
        ),
        ([event("exit", code=0, signal=0)], "an exit event without code, signal and oom"),
        ([health("fine")], "a health event without a status"),
        ([event("health", status="healthy", failing="0")], "a health event without a status"),
        ([health("healthy", code=0, output=["x"])], "a health event without a status"),
        ([health("healthy", code=True)], "a health event without a status"),
        ([event("health", status=["healthy"], failing=0)], "a health event without a status"),
    ],
    # The ids stay the same from run to run, as the events' times do not.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_guest_that_breaks_the_contract_is_named(
    make: Make, steps: list[Step], said: str
) -> None:
    with make([BOOT[0], *steps, ["hang"]]) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match="the guest broke the boot contract") as caught:
            vm.wait_for("exec", in_time())
    assert said in str(caught.value)


@pytest.mark.parametrize("contract", [1, 3, "2", None])
def test_a_guest_of_another_contract_is_told_at_once(make: Make, contract: object) -> None:
    with make([event("init", contract=contract, start=1), HANG]) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited) as caught:
            vm.wait_for("exec", in_time())
    assert f"speaks version {contract!r}, this fcbuild version 2" in str(caught.value)


def test_a_healthy_image_is_waited_for(make: Make) -> None:
    steps = [
        *BOOT,
        health("starting"),
        ["sleep", 0.2],
        health("healthy", code=0, output="fine\n"),
        *STOPPED,
    ]
    with make(steps) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        found = vm.wait_for_health(in_time())
        assert found == Health("healthy", 0, 0, "fine\n", vm.timings.healthy)
        assert vm.timings.healthy >= vm.timings.stages["exec"] + 0.1
        assert vm.wait_for_health(soon()) is found
        vm.stop(in_time())
    assert vm.health is found


def test_an_unhealthy_image_tells_its_last_check(make: Make) -> None:
    steps = [
        *BOOT,
        health("starting"),
        health("unhealthy", failing=3, code=7, output="no \x1b[31mdb\n\nretry\n"),
        HANG,
    ]
    with make(steps) as vm:
        vm.start(in_time())
        found = vm.wait_for_health(in_time())
    assert str(found) == (
        "unhealthy, 3 failed in a row; the last check ended with status 7\n  | no [31mdb\n  | retry"
    )
    assert vm.timings.healthy == 0.0
    late = Health("unhealthy", failing=2, code=-1, output="", at=0.0)
    assert str(late) == "unhealthy, 2 failed in a row; the last check took too long"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "not healthy in time: the guest does not say"),
        ([health("starting")], "not healthy in time: starting, no check has ended yet"),
    ],
)
def test_a_health_check_without_a_verdict_is_a_timeout(
    make: Make, steps: list[Step], said: str
) -> None:
    with make([*BOOT, *steps, HANG]) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        with pytest.raises(BootTimeout, match=said):
            vm.wait_for_health(soon())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([*end(code=3)[:1], HANG], "the program ended with status 3, waiting for the health"),
        (
            [*end(code=137, signal=9, oom=True)[:1], HANG],
            r"the program ended with status 137 \(out of memory\), waiting for the health check",
        ),
        ([["leave", 0]], "the VM ended while waiting for the health check"),
        ([event("fail", stage="exec", reason="guest", error="x"), HANG], "PID 1 gave up at exec"),
    ],
    ids=["exit", "out of memory", "end", "fail"],
)
def test_an_end_before_the_verdict_is_told_at_once(
    make: Make, steps: list[Step], said: str
) -> None:
    with make([*BOOT, health("starting"), *steps]) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match=said):
            vm.wait_for_health(in_time())


def test_an_init_that_says_when_it_is_ready_is_waited_for(make: Make) -> None:
    with make([*BOOT, ["sleep", 0.1], event("ready"), *STOPPED]) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        assert "ready" not in vm.timings.stages
        vm.wait_for("ready", in_time())
        assert vm.stage == "ready"
        vm.stop(in_time())


def test_ctrl_alt_del_stops_the_guest(make: Make) -> None:
    with make(SERVICE) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        vm.send_ctrl_alt_del()
        vm.wait_for_end(in_time())
    assert vm.exit == Exit(code=0, signal=0)


def test_the_kernel_that_ends_the_program_for_want_of_memory_is_told(make: Make) -> None:
    with make([*BOOT, *end(code=137, signal=9, oom=True)]) as vm:
        vm.start(in_time())
        vm.wait_for_end(in_time())
    assert vm.exit == Exit(code=137, signal=9, oom=True)
    assert str(vm.exit) == "status 137 (out of memory)"
    assert str(Exit(code=137, signal=9)) == "status 137"


def test_drives_network_and_metadata_reach_firecracker(
    make: Make, tmp_path: Path, short_dir: Path
) -> None:
    for name in ("config", "overlay"):
        (tmp_path / name).touch()
    given = {
        "shared": True,
        "config": tmp_path / "config",
        "overlay": tmp_path / "overlay",
        "tap": "tap0",
        "metadata": {"a": [1, {"b": "c"}]},
    }
    with make(SERVICE, vm=given) as vm:
        assert vm._launch.disks == [
            (tmp_path / "rootfs.ext4", False),
            (tmp_path / "config", False),
            (tmp_path / "overlay", True),
        ]
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        vm.stop(in_time())
    paths = [json.loads(call)[0] for call in (short_dir / "calls.jsonl").read_text().splitlines()]
    assert paths[2:5] == ["/drives/rootfs", "/drives/config", "/drives/overlay"]
    assert paths[-3:] == ["/network-interfaces/eth0", "/mmds/config", "/mmds"]


def test_a_guest_that_says_nothing_is_a_timeout(make: Make) -> None:
    with make([["console", "Booting"], ["hang"]]) as vm:
        vm.start(in_time())
        deadline = time.monotonic() + SOON_S
        with pytest.raises(BootTimeout, match="no 'exec' event came in time") as caught:
            vm.wait_for("exec", deadline)
        assert time.monotonic() >= deadline
    assert caught.value.console == ("Booting",)


def test_waiting_for_more_ends_at_the_deadline(make: Make) -> None:
    with make([*BOOT, ["hang"]]) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        assert not vm.wait_for_more(soon())
        assert not vm.ended


def test_waiting_for_more_ends_with_the_vm(make: Make) -> None:
    with make([["leave", 0]]) as vm:
        vm.start(in_time())
        while vm.wait_for_more(in_time()):
            pass
        assert vm.ended


def test_a_second_connection_to_the_event_port_is_refused(make: Make) -> None:
    with make([*BOOT, ["await_stop"], ["intrude"], *end()]) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        vm.stop(in_time())
    assert "refused" in vm.console()[-1]


def test_a_vm_that_does_not_stop_is_a_timeout(make: Make) -> None:
    with make([*BOOT, ["hang"]]) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        with pytest.raises(BootTimeout, match="the VM did not end in time"):
            vm.stop(soon())
        process = pid(vm)
    assert not alive(process)


@pytest.mark.parametrize(
    ("control", "said"), [("error busy\n", "does not take 'stop': error busy"), (None, "'stop'")]
)
def test_a_stop_that_is_refused_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, control: str | None, said: str
) -> None:
    monkeypatch.setattr(machine, "DYING_S", 0.1)
    with make([*BOOT, ["hang"]], control=control) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        with pytest.raises(VmmError) as caught:
            vm.stop(in_time())
    assert said in str(caught.value)


def test_a_vm_that_ends_while_it_is_told_to_is_no_error(make: Make) -> None:
    """The control port closes without an answer, and the end comes a moment later."""
    steps = [*BOOT, ["sleep", 0.3], *end(code=0)]
    with make(steps, control=None) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        vm.stop(in_time())
        assert vm.exit == Exit(code=0, signal=0)


def test_a_firecracker_with_a_bad_status_is_told(make: Make) -> None:
    with make([*BOOT, *end()[:-1], ["leave", 148]]) as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match="Firecracker ended with status 148"):
            vm.wait_for_end(in_time())


def test_a_vm_that_ends_without_an_exit_event_is_told(make: Make) -> None:
    with make([*BOOT, ["leave", 0]]) as vm:
        vm.start(in_time())
        vm.wait_for("exec", in_time())
        with pytest.raises(GuestExited, match="the VM ended while waiting for the end"):
            vm.wait_for_end(in_time())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_whatever_happens_no_process_stays(make: Make, error: type[BaseException]) -> None:
    with pytest.raises(error), make([*BOOT, ["hang"]]) as vm:
        vm.start(in_time())
        process = pid(vm)
        raise error
    assert not alive(process)


def test_an_interruption_while_waiting_leaves_no_process(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Machine, deadline: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), make([["hang"]]) as vm:
        vm.start(in_time())
        process = pid(vm)
        monkeypatch.setattr(Machine, "_take", interrupt)
        vm.wait_for("exec", in_time())
    assert not alive(process)


def test_ending_is_safe_before_the_start(make: Make) -> None:
    vm = make()
    vm.end()
    vm.end()


def test_ending_is_safe_twice(make: Make) -> None:
    vm = make([["hang"]])
    vm.start(in_time())
    process = pid(vm)
    vm.end()
    vm.end()
    assert not alive(process)


def test_the_run_directory_holds_the_evidence(make: Make, short_dir: Path) -> None:
    with make([*BOOT, ["print", "out\n"], ["console", "con"], *end(stdout=4)]) as vm:
        vm.start(in_time())
        vm.wait_for_end(in_time())
    assert (short_dir / "output.log").read_text() == "out\n"
    assert (short_dir / "console.log").read_text() == "con\n"
    assert (short_dir / "firecracker.log").exists()


def test_the_console_in_an_error_is_short_and_printable(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 200_000 + b"\n" + b"\x1b[2J\xff\x00bad\r\n\n" * 3 + b"end \tx  \n" * 20)
    lines = machine.last_lines(log)
    assert len(lines) == machine.CONSOLE_LINES
    assert lines[-1] == "end \tx"
    log.write_bytes(b"\x1b[2Jone\x07\r\n\r\ntwo")
    assert machine.last_lines(log) == ["[2Jone", "two"]
    assert machine.last_lines(tmp_path / "none") == []


def test_the_machine_is_launched_with_its_sockets_and_files(make: Make, short_dir: Path) -> None:
    vm = make()
    launch = vm._launch
    vm.end()
    assert list(launch.args)[:2] == ["--api-sock", str(short_dir / "api.sock")]
    assert [path.name for path in launch.connect] == ["api.sock", "v.sock"]
    assert [path.name for path in launch.listen] == ["v.sock_10240", "v.sock_10241", "v.sock_10242"]
    assert launch.disks == [(Path(vm.config.drives[0].path_on_host), True)]
    assert vm.config.vsock.guest_cid == config.GUEST_CID
    assert issubclass(BootTimeout, BootFailed)
