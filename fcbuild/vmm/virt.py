"""QEMU's `virt` machine: 64-bit ARM microVMs on a machine of another architecture, emulated.

There is no vsock, which QEMU takes from the host's kernel: one virtio-serial port carries the boot
contract's link (guest/BOOT_CONTRACT.md, section 4.1), so that nothing listens anywhere but in
run_dir. There is no metadata service either, and no Ctrl-Alt-Del.

In run_dir, beside the files that every machine has:

    qemu.log           QEMU's own messages: evidence when it fails
    qemu.sock          where QEMU connects to us; gone once it has
"""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcbuild.errors import ToolMissing, VmmError
from fcbuild.kernel_command_line import QEMU_VIRT
from fcbuild.run import need, output
from fcbuild.vmm import process, qemu
from fcbuild.vmm.bridge import Bridge
from fcbuild.vmm.config import NIC, MicroVm, drive_words
from fcbuild.vmm.host import KvmKind, VmmProcess
from fcbuild.vmm.link import CONTROL, EVENTS, FORWARD, STDERR, STDOUT, dial_socket
from fcbuild.vmm.machine import Machine

QEMU = "qemu-system-aarch64"
_WHAT = "QEMU"


@dataclass(frozen=True)
class Virt:
    """A machine.Vmm: QEMU, which runs everything by itself."""

    qemu: Path
    version: str
    name: str = f"{QEMU} -M virt"
    kind: KvmKind = "none"

    def machine(self, vm: MicroVm, run_dir: Path) -> VirtMachine:
        return VirtMachine(self, vm, run_dir=run_dir)


def find() -> Virt:
    """Return the QEMU to use. Raises ToolMissing."""
    path = need(QEMU, "qemu-system-arm")
    text = output([path, "--version"], what="asking QEMU's version")
    match = re.search(r"QEMU emulator version (\S+)", text or "")
    if match is None:
        raise ToolMissing(f"{path} --version does not say that it is QEMU")
    return Virt(Path(path), match[1])


class VirtMachine(Machine):
    """See Machine."""

    def __init__(self, virt: Virt, vm: MicroVm, *, run_dir: Path) -> None:
        super().__init__("QEMU", run_dir=run_dir, log=run_dir / "qemu.log", dial=dial_socket)
        self.version = virt.version
        self._connect = tuple(map(self._link.path, (CONTROL, FORWARD)))
        self._listen = tuple(map(self._link.path, (EVENTS, STDOUT, STDERR)))
        self._socket = run_dir / "qemu.sock"
        self.argv = _argv(virt.qemu, vm, console=self.console_log, link=self._socket)

    def send_ctrl_alt_del(self) -> None:
        raise VmmError("QEMU's virt machine has no Ctrl-Alt-Del", hint="stop it by its link")

    def _spawn(self) -> VmmProcess:
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(qemu.listening(self._socket))
            undo.callback(self._socket.unlink, missing_ok=True)
            bridge = Bridge(
                connect=self._connect,
                listen=self._listen,
                logs=(),
                on_broken=lambda: child.kill(),
            )
            undo.callback(bridge.close)
            with self.vmm_log.open("ab") as log:
                child = process.spawn(self.argv, stdout=log)
            undo.callback(process.end, child, grace_s=0)
            # From here on the guest runs.
            now = time.monotonic()
            self.timings.api = self.timings.configured = self.timings.started = now
            bridge.start(qemu.connection(child, listener, what=_WHAT, log=self.vmm_log))
            started = VirtProcess(child, bridge, self.vmm_log)
            undo.pop_all()
        listener.close()
        self._socket.unlink(missing_ok=True)
        return started

    def _begin(self, deadline: float) -> None:
        pass  # QEMU starts its guest unasked


class VirtProcess:
    """A host.VmmProcess: QEMU, and the bridge to its guest."""

    def __init__(self, child: subprocess.Popen[bytes], bridge: Bridge, log: Path) -> None:
        self._child = child
        self._bridge = bridge
        self._log = log
        self._was_ended = False

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait(self, timeout_s: float) -> int:
        if not qemu.ended(self._child, timeout_s):
            raise VmmError(f"QEMU did not end within {timeout_s:g} s")
        return self._child.returncode

    def end(self) -> None:
        self._was_ended = self._was_ended or self._child.poll() is None
        try:
            process.end(self._child, grace_s=0)
        finally:
            self._bridge.close()

    def trouble(self) -> str | None:
        if self._bridge.trouble is not None:
            return self._bridge.trouble
        status = self._child.poll()
        if not status or self._was_ended:
            return None
        return qemu.how_it_ended(status, what=_WHAT, log=self._log)


def _argv(binary: Path, vm: MicroVm, *, console: Path, link: Path) -> Sequence[str | Path]:
    # The kernel finds and numbers the transports in this order: the port is of virtio0, and the
    # drives are /dev/vda and so on.
    buses = map(",bus=virtio-mmio-bus.{}".format, itertools.count())

    argv: list[str | Path] = [
        binary,
        *("-M", "virt,gic-version=3"),  # version 2 is for eight CPUs at most
        *("-accel", "tcg,thread=multi"),
        # Emulated, the architecture's own way to sign pointers takes most of the time.
        *("-cpu", "max,pauth-impdef=on"),
        *("-smp", str(vm.vcpus)),
        *("-m", f"{vm.memory_mib}M"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-kernel", vm.kernel),
        *("-append", command_line(vm)),
        *qemu.console(console),
        *qemu.port(link, bus=next(buses)),
    ]
    for index, drive in enumerate(vm.drives):
        path = Path(drive.path_on_host)
        argv += qemu.disk(index, path, writable=not drive.is_read_only, bus=next(buses))
    argv += ["-device", f"virtio-rng-device{next(buses)}"]
    if vm.tap is not None:
        mac = f",mac={vm.mac}" if vm.mac else ""
        argv += ["-netdev", f"tap,id={NIC},ifname={vm.tap},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-device,netdev={NIC}{mac}{next(buses)}"]
    return argv


def command_line(vm: MicroVm) -> str:
    """Return the kernel's command line. Raises VmmError if it is too long."""
    platform = QEMU_VIRT.loud() if vm.verbose else QEMU_VIRT
    mode = "ro" if vm.shared else "rw"  # of the root, which Firecracker says itself
    return platform.line((mode, *drive_words(vm.drives), *vm.arguments), devices=0)
