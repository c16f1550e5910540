"""The emulated KVM host, with a script in QEMU's place that speaks for the agent."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fcbuild.errors import ToolMissing, VmmError
from fcbuild.vmm.emulated import EmulatedHost
from fcbuild.vmm.host import Host, VmmLaunch
from fcbuild.vmm.initramfs import RegularFile

DEADLINE_S = 20.0

# {then} runs with `link` connected as QEMU's chardev is; the console is QEMU's standard output.
QEMU = textwrap.dedent(
    """\
    #!/usr/bin/env python3
    import socket, struct, sys, time
    from pathlib import Path

    def frame(kind, stream, payload):
        link.sendall(struct.pack("<BII", kind, stream, len(payload)) + payload)

    chardevs = [b for a, b in zip(sys.argv, sys.argv[1:]) if a == "-chardev"]
    path = next(c.split("path=")[1] for c in chardevs if c.startswith("socket,"))
    Path(path).with_name("argv").write_text("\\n".join(sys.argv))
    link = socket.socket(socket.AF_UNIX)
    """
)
CONNECT = "link.connect(path.replace(',,', ','))\n"
READY = "frame(1, 0, struct.pack('<I', 1))\n"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    # Unix sockets need a short path, and tmp_path is long.
    with tempfile.TemporaryDirectory(prefix="fce") as directory:
        yield Path(directory)


@pytest.fixture
def host(tmp_path: Path) -> EmulatedHost:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\necho 2000000\n")
    agent.chmod(0o755)
    (tmp_path / "vmlinux").write_bytes(b"kernel")
    (tmp_path / "firecracker").write_bytes(b"firecracker")
    return EmulatedHost(tmp_path / "qemu", tmp_path / "vmlinux", agent)


def pretend(host: EmulatedHost, then: str) -> EmulatedHost:
    host.qemu.write_text(QEMU + then)
    host.qemu.chmod(0o755)
    return host


def launch(host: EmulatedHost, run_dir: Path) -> VmmLaunch:
    return VmmLaunch(
        run_dir=run_dir,
        firecracker=host.kernel.with_name("firecracker"),
        args=["--id", "x"],
        connect=[run_dir / "api.sock"],
        listen=[],
        logs=[run_dir / "fc.log"],
        disks=[(run_dir / "a,b.ext4", True), (run_dir / "c.ext4", False)],
        files=[host.kernel],
        memory_mib=512,
        vcpus=1,
    )


def left(run_dir: Path) -> set[str]:
    logs = {"console.log", "fc.log", "host-console.log", "argv"}
    return {path.name for path in run_dir.iterdir()} - logs


def test_status_and_logs(host: EmulatedHost, run_dir: Path) -> None:
    exits = "frame(9, 0, b'hello\\n'); frame(11, 0, struct.pack('<i', -9)); link.recv(9)\n"
    emulated: Host = pretend(host, CONNECT + READY + exits)
    process = emulated.spawn(launch(host, run_dir))
    assert process.wait(DEADLINE_S) == -9
    assert process.wait(DEADLINE_S) == -9
    assert process.trouble() is None
    process.end()
    process.end()
    assert (run_dir / "console.log").read_bytes() == b"hello\n"
    assert left(run_dir) == set()


def test_options(host: EmulatedHost, run_dir: Path) -> None:
    process = pretend(host, CONNECT + "time.sleep(60)\n").spawn(launch(host, run_dir))
    process.end()
    argv = (run_dir / "argv").read_text().splitlines()
    options = list(pairwise(argv))
    drives = [value for option, value in options if option == "-blockdev"]
    assert [json.loads(drive)["read-only"] for drive in drives] == [False, True]
    assert json.loads(drives[0])["file"]["filename"] == os.fspath(run_dir / "a,b.ext4")
    serials = [value[-5:] for option, value in options if value.startswith("virtio-blk-device")]
    assert serials == ["disk0", "disk1"]
    (memory,) = [int(value.rstrip("M")) for option, value in options if option == "-m"]
    assert memory > 512
    (append,) = [value for option, value in options if option == "-append"]
    assert "tsc_early_khz=2000000" in append.split()
    assert {"-netdev", "-nic"}.isdisjoint(argv)


@pytest.mark.parametrize(("tap", "said"), [("tap0", True), (None, False)])
def test_the_agent_is_told_of_the_tap(
    host: EmulatedHost, run_dir: Path, tap: str | None, said: bool
) -> None:
    entries = list(host._entries(replace(launch(host, run_dir), tap=tap)))
    (config,) = [entry for entry in entries if entry.path.name == "agent.conf"]
    assert isinstance(config, RegularFile) and isinstance(config.content, bytes)
    assert (b"\ntap 4\ntap0\n" in config.content) is said


def test_end_at_once(host: EmulatedHost, run_dir: Path) -> None:
    threads = threading.active_count()
    process = pretend(host, CONNECT + "time.sleep(60)\n").spawn(launch(host, run_dir))
    assert (run_dir / "api.sock").is_socket()
    with pytest.raises(VmmError, match=r"within 0\.05 s"):
        process.wait(0.05)
    process.end()
    assert not Path(f"/proc/{process.pid}").exists()
    assert process.trouble() is None
    assert left(run_dir) == set()
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("then", "trouble"),
    [
        ("print('first'); print('Kernel panic - it'); print('trace')\n", "status 0 .*: Kernel pan"),
        ("print('a'); print('b'); sys.exit(3)\n", "status 3 .*: a / b$"),
        ("frame(13, 0, b'no KVM')\n", "^no KVM$"),
        ("frame(99, 0, b''); time.sleep(60)\n", "type 99"),
    ],
)
def test_trouble(host: EmulatedHost, run_dir: Path, then: str, trouble: str) -> None:
    process = pretend(host, CONNECT + READY + then).spawn(launch(host, run_dir))
    with pytest.raises(VmmError, match=r"host-console\.log") as raised:
        process.wait(DEADLINE_S)
    told = process.trouble()
    assert told == raised.value.message
    assert re.search(trouble, told)
    process.end()
    assert process.trouble() == told
    assert left(run_dir) == set()


def test_qemu_that_does_not_start(host: EmulatedHost, run_dir: Path) -> None:
    with pytest.raises(VmmError, match=r"status 1 .*no such machine"):
        pretend(host, "print('no such machine'); sys.exit(1)\n").spawn(launch(host, run_dir))
    assert left(run_dir) == set()


def test_qemu_that_is_not_there(host: EmulatedHost, run_dir: Path) -> None:
    with pytest.raises(ToolMissing):
        host.spawn(launch(host, run_dir))
    assert left(run_dir) == set()


def test_path_that_l1_cannot_have(host: EmulatedHost, run_dir: Path) -> None:
    wrong = replace(launch(host, run_dir), disks=[(Path("/dev/vdb"), False)])
    with pytest.raises(VmmError, match="/dev/vdb"):
        pretend(host, CONNECT).spawn(wrong)
    assert left(run_dir) == set()


def test_more_drives_than_there_are_slots(host: EmulatedHost, run_dir: Path) -> None:
    drives = [(run_dir / str(n), False) for n in range(8)]
    with pytest.raises(VmmError, match="7 drives"):
        pretend(host, CONNECT).spawn(replace(launch(host, run_dir), disks=drives))
