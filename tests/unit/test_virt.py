"""QEMU's virt machine, with a script in QEMU's place that speaks for the guest."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import BootTimeout, GuestExited, GuestPanic, ToolMissing, VmmError
from fcbuild.vmm import virt
from fcbuild.vmm.config import MicroVm
from fcbuild.vmm.machine import Exit
from fcbuild.vmm.virt import Virt, VirtMachine

DEADLINE_S = 20.0

# The guest's side of kvmhost/LINK.md, as far as one boot needs it.
QEMU = """\
#!/usr/bin/env python3
import json, socket, struct, sys, time

option = dict(zip(sys.argv, sys.argv[1:]))
chardevs = [b for a, b in zip(sys.argv, sys.argv[1:]) if a == "-chardev"]
path = next(c.split("path=")[1] for c in chardevs if c.startswith("socket,"))
console = open(next(c.split("path=")[1] for c in chardevs if c.startswith("file,")), "a")
link = socket.socket(socket.AF_UNIX)

def say(text):
    print(text, file=console, flush=True)

def frame(kind, stream, payload=b""):
    link.sendall(struct.pack("<BII", kind, stream, len(payload)) + payload)

def event(name, **fields):
    frame(5, 2, json.dumps({"event": name, "t": 1, **fields}).encode() + b"\\n")

def read():
    head = b""
    while len(head) < 9:
        head += link.recv(9 - len(head)) or sys.exit(9)
    kind, stream, length = struct.unpack("<BII", head)
    payload = b""
    while len(payload) < length:
        payload += link.recv(length - len(payload))
    return kind, stream, payload

def boot():
    link.connect(path)
    frame(1, 0, struct.pack("<I", 1))
    for index in range(3):
        frame(2, 2 + 2 * index, struct.pack("<I", index))
    event("init", contract=2, start=1)
    event("exec", pid=2)

def serve():
    while True:
        kind, stream, payload = read()
        if kind == 2:
            assert payload == struct.pack("<I", 0), "the control port is asked for"
            frame(3, stream)
        elif kind == 5:
            frame(5, stream, b"ok\\n")
            frame(8, stream)
            return payload

def finish(printed=b""):
    frame(5, 4, printed)
    event("exit", code=0, signal=0, oom=False, stdout=len(printed), stderr=0)
    event("end")
    closed = set()
    while not {2, 4, 6} <= closed:
        kind, stream, _ = read()
        closed |= {stream} if kind == 8 else set()

"""

Make = Callable[..., VirtMachine]


@pytest.fixture
def make(tmp_path: Path, short_dir: Path) -> Make:
    """Make a machine whose QEMU does as told."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")

    def make(then: str = "", **vm: Any) -> VirtMachine:
        qemu = tmp_path / "qemu"
        qemu.write_text(QEMU + textwrap.dedent(then))
        qemu.chmod(0o755)
        given: dict[str, Any] = {
            "kernel": tmp_path / "Image",
            "rootfs": tmp_path / "a,b.ext4",
            "vcpus": 2,
            "memory_mib": 96,
        }
        return Virt(qemu, "7.2").machine(MicroVm(**{**given, **vm}), short_dir)

    return make


def in_time() -> float:
    return time.monotonic() + DEADLINE_S


def test_a_service_boots_and_is_stopped(make: Make, short_dir: Path) -> None:
    with make("boot(); assert serve() == b'stop\\n'; finish(b'bye\\n')") as vm:
        vm.start(in_time())
        assert vm.version == "7.2"
        vm.wait_for("exec", in_time())
        vm.stop(in_time())
        assert vm.exit == Exit(0, 0)
        assert vm.take_output() == ["bye"]
        assert vm._process
        number = vm._process.pid
    assert not Path(f"/proc/{number}").exists()
    assert {path.name for path in short_dir.iterdir()} == {"output.log", "console.log", "qemu.log"}
    times = vm.timings
    assert 0 < times.begun <= times.started < times.stages["init"]


def test_a_guest_that_panics_is_told_by_its_console(make: Make) -> None:
    with make("link.connect(path); say('Kernel panic - not syncing: no root')") as vm:
        vm.start(in_time())
        with pytest.raises(GuestPanic, match="no root"):
            vm.wait_for("exec", in_time())


def test_a_qemu_that_refuses_is_told_with_its_words(make: Make) -> None:
    with (
        make("print('qemu: no such machine', flush=True); sys.exit(1)") as vm,
        pytest.raises(VmmError, match="QEMU ended with status 1 by itself: qemu: no such machine"),
    ):
        vm.start(in_time())


def test_a_qemu_that_dies_is_told(make: Make) -> None:
    with make("boot(); print('qemu: aborted', flush=True); sys.exit(3)") as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match="QEMU ended with status 3 by itself: qemu: aborted"):
            vm.wait_for("ready", in_time())


def test_a_guest_that_breaks_the_links_rules_is_ended(make: Make) -> None:
    with make("boot(); frame(9, 0, b'a log'); time.sleep(60)") as vm:
        vm.start(in_time())
        with pytest.raises(GuestExited, match="QEMU's guest named a log that is not"):
            vm.wait_for("ready", in_time())


def test_a_guest_that_says_nothing_is_given_up(make: Make) -> None:
    with make("link.connect(path); time.sleep(60)") as vm:
        vm.start(in_time())
        with pytest.raises(BootTimeout, match="no 'exec' event"):
            vm.wait_for("exec", time.monotonic() + 0.2)
        assert vm._process
        number = vm._process.pid
    assert not Path(f"/proc/{number}").exists()


def options_of(vm: VirtMachine) -> list[tuple[str, str]]:
    """Return each word that QEMU is started with, and the one behind it."""
    with vm:
        return list(pairwise(map(str, vm.argv)))


def line_of(vm: VirtMachine) -> str:
    (line,) = [value for option, value in options_of(vm) if option == "-append"]
    return line


def test_the_options_of_a_machine_with_everything(make: Make, tmp_path: Path) -> None:
    vm = make(
        shared=True,
        config=tmp_path / "config",
        overlay=tmp_path / "overlay",
        tap="tap7",
        mac="02:00:00:00:00:01",
        arguments=("quota=1",),
    )
    options = options_of(vm)
    assert {("-smp", "2"), ("-m", "96M")} < set(options) and "-no-reboot" in vm.argv
    drives = [value for option, value in options if option == "-blockdev"]
    assert ['"read-only": true' in drive for drive in drives] == [True, True, False]
    devices = [value for option, value in options if option == "-device" and "bus=" in value]
    # In the order in which the kernel finds them: vport0p1, vda, vdb, vdc.
    assert [device.partition("-device")[0] for device in devices] == [
        *("virtio-serial", "virtio-blk", "virtio-blk", "virtio-blk", "virtio-rng", "virtio-net")
    ]
    assert [device.rpartition(".")[2] for device in devices] == list("012345")
    assert ("-netdev", "tap,id=eth0,ifname=tap7,script=no,downscript=no") in options
    assert line_of(vm) == (
        "panic=-1 quiet nomodule console=ttyAMA0 root=/dev/vda FCBUILD_LINK=/dev/vport0p1 "
        "init=/.fcbuild/init ro fcbuild.config=/dev/vdb fcbuild.overlay=/dev/vdc quota=1"
    )


def test_a_root_that_is_written_to_and_no_network(make: Make) -> None:
    vm = make()
    assert not [word for words in options_of(vm) for word in words if "net" in word]
    assert line_of(vm).endswith(" init=/.fcbuild/init rw")


def test_a_kernel_that_tells_everything(make: Make) -> None:
    words = line_of(make(verbose=True)).split()
    assert "quiet" not in words and {"ignore_loglevel", "earlycon"} < set(words)


def test_there_is_no_ctrl_alt_del(make: Make) -> None:
    with make() as vm, pytest.raises(VmmError, match="no Ctrl-Alt-Del"):
        vm.send_ctrl_alt_del()


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / virt.QEMU


def test_qemu_and_its_version_are_found(on_path: Path) -> None:
    on_path.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)'\n")
    on_path.chmod(0o755)
    found = virt.find()
    assert (found.qemu, found.version, found.kind) == (on_path, "7.2.22", "none")


def test_what_does_not_say_that_it_is_qemu_is_not_used(on_path: Path) -> None:
    on_path.write_text("#!/bin/sh\necho hello\n")
    on_path.chmod(0o755)
    with pytest.raises(ToolMissing, match="does not say that it is QEMU"):
        virt.find()
