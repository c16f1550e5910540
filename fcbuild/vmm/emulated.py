"""The emulated KVM host: Firecracker inside a first-level guest of QEMU's own emulation (TCG).

TCG emulates AMD's SVM with nested paging, so an unmodified Firecracker finds a working /dev/kvm
there, without any virtualization of this machine's. The first level ("L1") is our kernel, an
initramfs made for each launch and one agent (kvmhost/LINK.md). It has no network: one
virtio-serial port carries Firecracker's sockets, so that nothing listens anywhere but in run_dir.

In run_dir, beside Firecracker's own files:

    host-console.log   L1's kernel console and QEMU's messages: evidence when L1 fails
    host.initramfs     read by QEMU at its start
    host.sock          where QEMU connects to us; gone once it has

A writable drive is complete on this host after Firecracker ended by itself. After end() it holds
what the guest had flushed, as after a power cut.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fcbuild import run
from fcbuild.errors import ToolMissing, VmmError
from fcbuild.vmm import initramfs, process, qemu
from fcbuild.vmm.bridge import Bridge
from fcbuild.vmm.host import KvmKind, VmmLaunch
from fcbuild.vmm.hostlink import AgentConfig

# L1's own memory beside the guest's and the initramfs's: kernel and its page tables (40 MiB),
# Firecracker (10), full windows of all streams (64), page cache of the drives.
_OWN_MIB = 256
# An initramfs is there twice while it is unpacked, and a tmpfs takes at most half of the memory.
_INITRAMFS_COPIES = 2
_SMALLEST_MIB = 384

_CPUS = 2  # one for the guest's vCPU, one for Firecracker's devices
_MOST_CPUS = 8  # beyond this, TCG's threads mostly wait for each other

# The machine has eight virtio-mmio slots when ACPI does not describe it; the link takes one.
_MOST_DISKS = 7

_WHAT = "the emulated KVM host"  # in messages: whose QEMU it is

# Nothing of ours can be put there: L1 mounts its own.
_L1_OWN = tuple(map(PurePosixPath, ("/dev", "/proc", "/sys")))

_KERNEL_ARGS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # at once to -no-reboot
    "reboot=t",  # a triple fault: this machine has no keyboard controller to ask
    "tsc=reliable",  # no watchdog: there is no other clock to compare it with
    "no_timer_check",
    "random.trust_cpu=on",
    "transparent_hugepage=always",  # a fault of the guest's costs two emulated worlds
)


@dataclass(frozen=True)
class EmulatedHost:
    """A host.Host.

    qemu: qemu-system-x86_64. kernel: the `kvm-host` vmlinux, which finds its CPUs in the MP table
    and its devices on the command line (no ACPI). agent: its /init, a static binary.
    """

    qemu: Path
    kernel: Path
    agent: Path
    kind: KvmKind = "emulated"

    def spawn(self, launch: VmmLaunch) -> EmulatedProcess:
        """Start L1 with Firecracker in it; returns once QEMU runs and the sockets are there.

        A client of launch.connect may connect at once: it waits until Firecracker listens.
        Raises VmmError, or ToolMissing when QEMU is not there.
        """
        if not os.access(self.qemu, os.X_OK):
            raise ToolMissing(f"{self.qemu} is not there", hint="apt-get install qemu-system-x86")
        if len(launch.disks) > _MOST_DISKS:
            raise VmmError(f"an emulated KVM host takes {_MOST_DISKS} drives: {len(launch.disks)}")
        with contextlib.ExitStack() as undo:
            image = launch.run_dir / "host.initramfs"
            undo.callback(image.unlink, missing_ok=True)
            with image.open("wb") as out:
                size = initramfs.write(out, self._entries(launch))
            link_path = launch.run_dir / "host.sock"
            listener = undo.enter_context(qemu.listening(link_path))
            undo.callback(link_path.unlink, missing_ok=True)
            bridge = Bridge(
                connect=launch.connect,
                listen=launch.listen,
                logs=[launch.run_dir / "console.log", *launch.logs],
                on_broken=lambda: child.kill(),
            )
            undo.callback(bridge.close)
            console = launch.run_dir / "host-console.log"
            argv = self._argv(launch, image, _memory_mib(launch, size), link_path, console)
            with console.open("ab") as log:
                child = process.spawn(argv, stdout=log)
            undo.callback(process.end, child, grace_s=0)
            bridge.start(qemu.connection(child, listener, what=_WHAT, log=console))
            started = EmulatedProcess(child, bridge, console, image)
            undo.pop_all()
        listener.close()
        link_path.unlink(missing_ok=True)
        return started

    def _entries(self, launch: VmmLaunch) -> Iterator[initramfs.Entry]:
        config = AgentConfig(
            argv=[launch.firecracker, *launch.args],
            connect=launch.connect,
            listen=launch.listen,
            logs=launch.logs,
            disks=[path for path, _ in launch.disks],
            tap=launch.tap,
        )
        root = PurePosixPath("/")
        yield initramfs.RegularFile(root / "init", self.agent, 0o755)
        yield initramfs.RegularFile(root / "agent.conf", config.encode(), 0o600)
        # The kernel opens it for PID 1 before there is a devtmpfs.
        yield initramfs.CharDevice(root / "dev/console", 5, 1)
        yield initramfs.Directory(_l1_path(launch.run_dir), 0o700)
        yield initramfs.RegularFile(_l1_path(launch.firecracker), launch.firecracker, 0o755)
        for path in dict.fromkeys(launch.files):
            yield initramfs.RegularFile(_l1_path(path), path)
        sockets_and_logs = (*launch.connect, *launch.listen, *launch.logs)
        for path in (*sockets_and_logs, *(disk for disk, _ in launch.disks)):
            yield initramfs.Directory(_l1_path(path).parent)

    def _argv(
        self, launch: VmmLaunch, image: Path, memory_mib: int, link: Path, console: Path
    ) -> list[str | Path]:
        cpus = min(max(_CPUS, launch.vcpus + 1), _MOST_CPUS)
        argv: list[str | Path] = [
            self.qemu,
            *("-M", "microvm,acpi=off,x-option-roms=off,rtc=on"),
            *("-accel", "tcg,thread=multi"),
            *("-cpu", "max"),
            *("-smp", str(cpus)),
            *("-m", f"{memory_mib}M"),
            *("-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none"),
            *("-kernel", self.kernel),
            *("-initrd", image),
            *("-append", " ".join((*_KERNEL_ARGS, f"tsc_early_khz={_tsc_khz(self.agent)}"))),
            *qemu.console(console),
            *qemu.port(link),
        ]
        for index, (path, writable) in enumerate(launch.disks):
            argv += qemu.disk(index, path, writable=writable)
        return argv


class EmulatedProcess:
    """A host.VmmProcess: the QEMU that Firecracker runs in, and the bridge to it."""

    def __init__(
        self, qemu: subprocess.Popen[bytes], bridge: Bridge, console: Path, image: Path
    ) -> None:
        self._qemu = qemu
        self._bridge = bridge
        self._console = console
        self._image = image
        self._was_ended = False

    @property
    def pid(self) -> int:
        return self._qemu.pid

    def wait(self, timeout_s: float) -> int:
        """Return Firecracker's exit status, or -n for signal n, once L1 has ended.

        Its logs are complete then. What it sent on its sockets before is still delivered to
        readers that are slow, until end(). Raises VmmError on timeout, or when L1 failed.
        """
        deadline = time.monotonic() + timeout_s
        if not qemu.ended(self._qemu, timeout_s):
            raise VmmError(
                f"Firecracker in the emulated KVM host did not end within {timeout_s:g} s"
            )
        self._bridge.link_ended.wait(max(1.0, deadline - time.monotonic()))
        if self._bridge.status is None:
            raise VmmError(
                self.trouble() or "the emulated KVM host was ended",
                hint=f"its console: {self._console}",
            )
        return self._bridge.status

    def end(self) -> None:
        """Kill L1 at once, close all connections, remove the sockets; safe to call twice."""
        self._was_ended = self._was_ended or self._qemu.poll() is None
        try:
            process.end(self._qemu, grace_s=0)
        finally:
            self._bridge.close()
            self._image.unlink(missing_ok=True)

    def trouble(self) -> str | None:
        """Say why L1 failed; None while it runs, and when Firecracker or end() ended it."""
        if self._bridge.trouble is not None:
            return self._bridge.trouble
        status = self._qemu.poll()
        if status is None or self._was_ended or self._bridge.status is not None:
            return None
        return qemu.how_it_ended(status, what=_WHAT, log=self._console)


@functools.cache
def _tsc_khz(agent: Path) -> int:
    """Return the rate of this machine's time-stamp counter, which TCG hands on as it is.

    L1 would measure it against an emulated timer instead, and fail on a busy machine: without a
    clock that it trusts its KVM is many times slower, and a microVM may never come up.
    """
    with tempfile.TemporaryFile() as out:
        run.run(
            [agent, "--tsc-khz"],
            what="measuring the time-stamp counter",
            stdout=out,
            timeout_s=10,
        )
        out.seek(0)
        return int(out.read())


def _l1_path(path: Path) -> PurePosixPath:
    pure = PurePosixPath(path)
    if any(pure.is_relative_to(own) for own in _L1_OWN):
        raise VmmError(f"{path} cannot be handed to an emulated KVM host")
    return pure


def _memory_mib(launch: VmmLaunch, initramfs_bytes: int) -> int:
    files_mib = -(-initramfs_bytes // (1 << 20))
    return max(_SMALLEST_MIB, launch.memory_mib + _OWN_MIB + _INITRAMFS_COPIES * files_mib)
