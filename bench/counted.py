"""Boot a kernel to its process 1 and count what it took: in Firecracker, and in QEMU's microvm.

    QEMU -icount > kvm-host kernel > host.c > Firecracker > the kernel > guest.c      firecracker()
    QEMU -icount > the kernel > guest.c                                               microvm()
    KVM > host.c > Firecracker > the kernel > guest.c                                 native()

QEMU's `-icount shift=0,sleep=off` lets one instruction take one nanosecond of the clock of the
machine that it emulates, whatever else the real one does; where all of that machine waits, its
clock jumps to the next timer. All files are in memory from the start, so that nothing waits for a
disk, and one processor runs everything, so that a run can be repeated to the instruction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from fcbuild.build.engine import Engine
from fcbuild.errors import FcBuildError
from fcbuild.run import run
from fcbuild.vmm import initramfs

SOURCES = Path(__file__).resolve().parent / "platform"
MEMORY_MIB = 128
BOOT_S = 900.0
# QEMU 7.2's nested SVM now and then loses a guest that patches its own code: once more, then.
ATTEMPTS = 3

# As the launcher has it, but for what only its PID 1 knows.
CMDLINE = (
    "reboot=k panic=-1 quiet nomodule console=ttyS0 i8042.noaux i8042.nomux i8042.dumbkbd "
    "pci=off init=/init rdinit=/init"
)

_L1_ARGS = (
    "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable no_timer_check random.trust_cpu=on "
    "transparent_hugepage=always tsc_early_khz=1000000 lpj=4000000"
)
# QEMU's processor has no TSC deadline timer, which Firecracker's has: all kernels would spend 108 M
# instructions on measuring the other timer of the APIC. The clocks need not be measured either,
# and a processor that halts would have the clock jump.
_MICROVM_ARGS = (
    "reboot=t panic=-1 quiet nomodule console=ttyS0 pci=off rdinit=/init "
    "nolapic_timer tsc_early_khz=1000000 lpj=4000000 idle=poll"
)
# QEMU counts each step of a "rep stosb" as one instruction. Without erms the kernel clears and
# copies by eight bytes a step, so that a page costs 512: about the nanoseconds of a real CPU.
_CPU = "max,erms=off,fsrm=off"

_FIRECRACKER_OWN_MIB = 256  # of the KVM host: its kernel, Firecracker, page tables

Root = Literal["disk", "initrd"]


class Count(NamedTuple):
    """What one boot took. load: from Firecracker's start of the microVM to the first instruction;
    boot: from there to process 1's first act; both in ns. free: MemFree there, in KiB."""

    load: int
    boot: int
    free: int


@dataclass(frozen=True)
class Rig:
    """Everything but the kernel. directory: for the files of a boot; one boot at a time."""

    qemu: Path
    host_kernel: Path
    firecracker: Path
    directory: Path

    def counted(self, kernel: Path, root: Root, arguments: str = "") -> Count:
        """Boot in Firecracker on the counted KVM host."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return read_host(self._counted(kernel, root, arguments))
            except FcBuildError:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError

    def native(self, kernel: Path, root: Root, arguments: str = "") -> Count:
        """Boot in Firecracker on this machine's KVM."""
        console = self.directory / "native.log"
        place = self.directory / "native"
        place.mkdir(exist_ok=True)
        for name, file in self._files(kernel, self.directory / "vm.json").items():
            link = place / name
            link.unlink(missing_ok=True)
            link.symlink_to(file)
        (self.directory / "vm.json").write_text(_vm(root, arguments))
        with console.open("wb") as log:
            argv = [self.directory / "host", place]
            env = {"TZ": "UTC"}  # of Firecracker's log
            run(argv, what=f"booting {kernel}", stdout=log, timeout_s=BOOT_S, env=env)
        (place / "v.sock").unlink(missing_ok=True)
        return read_host(console.read_text(errors="replace"))

    def microvm(self, kernel: Path, arguments: str = "") -> int:
        """Boot in QEMU's microvm, with counted instructions; return the time-stamp counter at
        process 1: one more for each instruction since the machine was switched on. Some 0.3 M of
        them are the firmware's, which are the same for every kernel."""
        with (self.directory / "microvm.log").open("wb") as log:
            argv = [
                *self._qemu("microvm,rtc=on", MEMORY_MIB),
                *("-cpu", _CPU, "-kernel", kernel, "-initrd", self.directory / "guest.cpio"),
                *("-append", f"{_MICROVM_ARGS} {arguments}"),
            ]
            run(argv, what=f"booting {kernel}", stdout=log, timeout_s=BOOT_S)
        return _number("guest: tsc", (self.directory / "microvm.log").read_text(errors="replace"))

    def _qemu(self, machine: str, memory_mib: int) -> Sequence[str | Path]:
        return (
            self.qemu,
            *("-M", machine, "-smp", "1", "-m", f"{memory_mib}M"),
            *("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"),
            *("-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-serial", "stdio"),
        )

    def _files(self, kernel: Path, vm: Path) -> dict[str, Path]:
        return {
            "firecracker": self.firecracker,
            "vmlinux": kernel,
            "disk": self.directory / "disk",
            "initrd": self.directory / "guest.cpio",
            "vm.json": vm,
        }

    def _counted(self, kernel: Path, root: Root, arguments: str) -> str:
        image, console = self.directory / "host.cpio", self.directory / "host.log"
        vm = self.directory / "vm.json"
        vm.write_text(_vm(root, arguments))
        top = PurePosixPath("/")
        entries: list[initramfs.Entry] = [
            initramfs.RegularFile(top / "init", self.directory / "host", 0o755),
            initramfs.CharDevice(top / "dev/console", 5, 1),
            initramfs.Directory(top / "proc"),
        ]
        entries += [
            initramfs.RegularFile(top / name, path, 0o755)
            for name, path in self._files(kernel, vm).items()
        ]
        with image.open("wb") as out:
            size = initramfs.write(out, entries)
        # An initramfs is there twice while it is unpacked.
        memory = MEMORY_MIB + _FIRECRACKER_OWN_MIB + 2 * (size >> 20)
        with console.open("wb") as log:
            argv = [
                *self._qemu("microvm,acpi=off,x-option-roms=off,rtc=on", memory),
                *("-cpu", _CPU, "-kernel", self.host_kernel, "-initrd", image),
                *("-append", _L1_ARGS),
            ]
            run(argv, what=f"booting {kernel}", stdout=log, timeout_s=BOOT_S)
        return console.read_text(errors="replace")


def prepare(engine: Engine, toolchain: str, directory: Path) -> None:
    """Compile the two programs, and make the root file system and the initrd that hold the guest's.
    Raises CommandFailed."""
    with (directory / "programs.log").open("wb") as log:
        engine.run(
            toolchain,
            ["bash", "-euc", _PREPARE],
            what="compiling the programs of the benchmark",
            mounts={SOURCES: "/src:ro", directory: "/out:rw"},
            log=log,
            log_path=directory / "programs.log",
            timeout_s=300.0,
        )
    with (directory / "guest.cpio").open("wb") as out:
        top = PurePosixPath("/")
        initramfs.write(
            out,
            [
                initramfs.RegularFile(top / "init", directory / "guest", 0o755),
                initramfs.CharDevice(top / "dev/console", 5, 1),
                initramfs.Directory(top / "proc"),
            ],
        )


def read_host(text: str) -> Count:
    """Find the marks of one boot on the console of its host. Raises FcBuildError if one is missing.

    Firecracker says when it begins to build a microVM, and when its processor begins to run.
    """
    building, booting = (_event(name, text) for name in ("build microvm for boot", "boot microvm"))
    program = _number("host: program", text)
    return Count(booting - building, program - booting, _number("guest: free", text))


def _event(name: str, text: str) -> int:
    match = re.search(rf"(\S+)\.(\d{{9}}) \[\S+\] event_start: {name}", text)
    if match is None:
        raise FcBuildError(f"Firecracker did not {name}:\n{_last(text)}")
    at = datetime.fromisoformat(f"{match[1]}+00:00")
    return int(at.timestamp()) * 1_000_000_000 + int(match[2])


def _number(mark: str, text: str) -> int:
    match = re.search(rf"{mark} (\d+)", text)
    if match is None or match[1] == "0":
        raise FcBuildError(f"a boot did not come to `{mark}`:\n{_last(text)}")
    return int(match[1])


def _last(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines()[-15:])


def _vm(root: Root, arguments: str) -> str:
    drive = {"drive_id": "root", "path_on_host": "disk", "is_read_only": True}
    source = {"kernel_image_path": "vmlinux", "boot_args": f"{CMDLINE} {arguments}".strip()}
    if root == "initrd":
        source["initrd_path"] = "initrd"
    document = {
        "boot-source": source,
        "drives": [{**drive, "is_root_device": root == "disk"}],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB},
        "vsock": {"guest_cid": 3, "uds_path": "v.sock"},
    }
    return json.dumps(document)


# In a container of the toolchain image.
_PREPARE = """
cd /out
for program in host guest; do
    musl-gcc -static -O2 -s -Wall -o $program /src/$program.c
done
rm -rf root disk
mkdir -p root/dev root/proc
cp guest root/init
SOURCE_DATE_EPOCH=1577836800 mke2fs -q -t ext4 -d root \
    -U 8d4b6f0c-0000-4000-8000-000000000000 -E hash_seed=8d4b6f0c-0000-4000-8000-000000000000 \
    disk 4M
rm -rf root
"""
