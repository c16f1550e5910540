"""Measure PID 1: kernel entry -> PID 1 -> the program's exec, and the program's end -> the VM's.

    .venv/bin/python bench/boot.py [--runs N] [--json] [--check]

Four ways to start one program are compared, all from one root filesystem that the pipeline makes
(bench/images/boot):

    fcbuild    our PID 1, with its boot config
    mounts     a minimal C program: the same mounts, links, files, lo and host name, then exec
    direct     the program itself as process 1
    shell      busybox's shell, the same system by one command after the other

Method. A busy machine makes times worthless, so guest instructions are counted instead: QEMU's TCG
with `-icount shift=0` lets one instruction take one nanosecond of the guest's clock, whatever else
the machine does. The guest spins when it waits (idle=poll), because a CPU that halts would have the
clock jump to its next timer; and how long QEMU's disk takes says nothing about PID 1, so process 1
is at first a program (/warm) that reads everything there is, and then becomes the one of the arm.
The kernel's own time stamps are the measure: "Run /warm as init process", that program's last act,
the measured program's first and last act (lines written to /dev/kmsg), and "reboot: Restarting
system". The way to exec repeats to about 1 %; the median is shown, the arms interleaved. What is
shown as time is that of a CPU with 1,000 million instructions a second, no caches and no exits to a
hypervisor; only the ratios mean something. "kernel" begins with the kernel's clock, which is a few
milliseconds after its entry, and holds the probing of QEMU's machine. The end has the disk's writes
in it, and varies with them.

This machine of QEMU's has no vsock: PID 1 finds nobody to link with. What the link to the host
costs is therefore measured apart, in real Firecracker, from the guest's events and the kernel's
time stamps in one boot. Those are times; in an emulated KVM host they are 20 to 50 times those of
hardware, and differ by a quarter from run to run: look at their shares.

Cost: the first run builds the root filesystem (half a minute with the base image at hand). Each run
is four counted boots, of 4 s on a quiet core, and one in Firecracker, of 7 s emulated: time grows
in proportion to N, memory and disk do not. Nothing is written but a private directory in TMPDIR.
"""

# ruff: noqa: E402 (the path to fcbuild has to be there before it is imported)

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fcbuild import progress, spec
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.build.program import BINARY
from fcbuild.errors import FcBuildError
from fcbuild.microvm import assemble, copy_disk
from fcbuild.plan import KVM_HOST, Plan
from fcbuild.run import need, run
from fcbuild.store import Artifact, Store
from fcbuild.tables import MIB
from fcbuild.vmm import firecracker, kvm
from fcbuild.vmm.emulated import EmulatedHost
from fcbuild.vmm.firecracker_machine import FirecrackerMachine
from fcbuild.vmm.host import Host
from fcbuild.vmm.native import NativeHost

IMAGE = "boot"
BOOT_S = 300.0

# The arms: what each is called, and what becomes process 1.
ARMS = {
    "fcbuild": "/.fcbuild/init",
    "mounts": "/mounts-init",
    "direct": "/program",
    "shell": "/shell-init",
}

# The project's own targets. PID 1 -> exec takes at most so many times what the same mounts and the
# program alone take, and is at least so many times faster than the shell ...
MOST_OF_MOUNTS = 1.5
LEAST_OF_SHELL = 5.0
# ... and for the end of the program -> the VM's end, in milliseconds of the guest's time.
MOST_TO_END = 100.0

# The phases that every arm has.
TO_INIT, TO_EXEC, TO_END = "kernel -> PID 1", "PID 1 -> exec", "exit -> VM's end"

# As in Firecracker (section 5 of the boot contract), but the machine is left by a triple fault.
# The clocks need not be measured: one instruction is one nanosecond.
CMDLINE = (
    "console=ttyS0 quiet panic=-1 reboot=t nomodule pci=off i8042.noaux i8042.nomux i8042.dumbkbd "
    "root=/dev/vda rw idle=poll tsc_early_khz=1000000 lpj=4000000"
)

# QEMU counts each step of a "rep stosb" as one instruction. Without erms the kernel clears and
# copies by eight bytes a step, so that a page costs 512: about the nanoseconds of a real CPU.
CPU = "max,erms=off,fsrm=off"

# What the console shows: "[    0.027919] bench: exec  boottime 0027644126".
MARK = re.compile(r"\[ *(\d+)\.(\d{6})\] bench: (\w+) (\d*) boottime (\d+)")
RESTART = re.compile(r"\[ *(\d+)\.(\d{6})\] reboot: Restarting system")


@dataclass(frozen=True)
class Boot:
    """One boot, in microseconds of the guest kernel's clock. Memory of process 1 in KiB, 0 where
    nobody could ask."""

    init: int  # the kernel starts process 1 ...
    start: int  # ... which becomes the one that is measured
    exec: int
    exit: int
    restart: int
    resident: int
    peak: int
    boottime: int  # what CLOCK_BOOTTIME has more than the kernel log's clock

    @property
    def spans(self) -> dict[str, int]:
        """The phases, named as they are shown."""
        return {
            TO_INIT: self.init,
            TO_EXEC: self.exec - self.start,
            TO_END: self.restart - self.exit,
        }


def read_console(text: str) -> Boot:
    """Find the marks of one boot on its console. Raises FcBuildError when one is missing."""
    at: dict[str, int] = {}
    said: dict[str, int] = {}
    offset = 0
    for seconds, micros, name, value, boottime in MARK.findall(text):
        at[name] = int(seconds + micros)
        said[name] = int(value or 0)
        if name == "exit":
            offset = int(boottime) // 1000 - at[name]
    restart = RESTART.search(text)
    if restart is None or not {"exec", "init", "exit"} <= at.keys():
        last = "\n".join(f"  | {line}" for line in text.splitlines()[-15:])
        raise FcBuildError(f"a boot did not come to its end:\n{last}")
    return Boot(
        init=said["init"],
        start=said.get("start", said["init"]),
        exec=at["exec"],
        exit=at["exit"],
        restart=int("".join(restart.groups())),
        resident=said.get("resident", 0),
        peak=said.get("peak", 0),
        boottime=offset,
    )


@dataclass(frozen=True)
class Bench:
    """What is booted, and where."""

    kernel: Artifact
    rootfs: Artifact
    init: Artifact
    qemu: Path
    vmm: firecracker.Firecracker
    host: Host
    image: spec.ImageSpec

    def count(self, program: str, directory: Path) -> Boot:
        """Boot once with counted instructions."""
        disk, console = directory / "rootfs.ext4", directory / "console.log"
        copy_disk(self.rootfs.file("rootfs.ext4"), disk)
        with console.open("wb") as log:
            run(
                [
                    self.qemu,
                    *("-M", "microvm,rtc=on", "-smp", "1"),
                    *("-m", f"{self.image.memory // MIB}M"),
                    *("-accel", "tcg,thread=single", "-cpu", CPU),
                    *("-icount", "shift=0,sleep=off"),
                    *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
                    *("-serial", "stdio"),
                    *("-kernel", self.kernel.file("vmlinux")),
                    *("-append", f"{CMDLINE} init=/warm arm={program}"),
                    *("-drive", f"id=disk,if=none,format=raw,cache.no-flush=on,file={disk}"),
                    *("-device", "virtio-blk-device,drive=disk"),
                ],
                what=f"booting with {program} as process 1",
                stdout=log,
                timeout_s=BOOT_S,
            )
        return read_console(console.read_text(errors="replace"))

    def link(self, directory: Path) -> dict[str, int]:
        """Boot once in Firecracker; return the phases in which the host takes part, in microseconds
        of the guest's clock."""
        vm = assemble(
            self.image,
            kernel=self.kernel,
            rootfs=self.rootfs,
            place=self.host,
            run_dir=directory,
        )
        machine = FirecrackerMachine(self.host, vm, firecracker=self.vmm.path, run_dir=directory)
        with machine:
            deadline = time.monotonic() + BOOT_S
            machine.start(deadline)
            machine.wait_for_end(deadline)
        boot = read_console(machine.console_log.read_text(errors="replace"))
        t = {event.name: event.t // 1000 for event in machine.events}
        (init,) = (event for event in machine.events if event.name == "init")
        start = init.fields["start"] // 1000
        restart = boot.restart + boot.boottime
        return {
            TO_INIT: start,
            TO_EXEC: t["exec"] - start,
            "  link: PID 1 -> init": t["init"] - start,
            "  system: init -> mounted": t["mounted"] - t["init"],
            "  program: mounted -> exec": t["exec"] - t["mounted"],
            TO_END: restart - t["exit"],
            "  disks: exit -> end": t["end"] - t["exit"],
            "  link: end -> VM's end": restart - t["end"],
        }


def prepare() -> Bench:
    """Build, or find in the store, what is booted. Raises FcBuildError."""
    plan = Plan(spec.load(HERE))
    root = os.environ.get("FCBUILD_STORE") or HERE.parent / "artifacts" / "store"
    pipeline = Pipeline(plan, Store(Path(root).resolve()), Docker())
    image = plan.specs.images[IMAGE]
    qemu = need("qemu-system-x86_64", "qemu-system-x86")
    host: Host = NativeHost()
    if kvm.trouble():
        host = EmulatedHost(
            qemu=qemu,
            kernel=pipeline.kernel(KVM_HOST)[0].file("vmlinux"),
            agent=pipeline.program(plan.agent)[0].file(BINARY["agent"]),
        )
    return Bench(
        kernel=pipeline.kernel(image.kernel)[0],
        rootfs=pipeline.rootfs(IMAGE)[0],
        init=pipeline.program(plan.init)[0],
        qemu=qemu,
        vmm=firecracker.find(pipeline.downloads),
        host=host,
        image=image,
    )


@dataclass(frozen=True)
class Target:
    """One of the project's targets, and what was measured."""

    what: str
    value: float
    met: bool


def medians(samples: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Return the median of each phase."""
    return {phase: median(sample[phase] for sample in samples) for phase in samples[0]}


@dataclass(frozen=True)
class Result:
    """All samples. counted: by arm, at one instruction a nanosecond. linked: in Firecracker."""

    kvm: str
    init_bytes: int
    counted: Mapping[str, Sequence[Boot]]
    linked: Sequence[Mapping[str, int]]

    def spans(self, arm: str) -> dict[str, float]:
        """The phases of an arm, in counted microseconds."""
        return medians([boot.spans for boot in self.counted[arm]])

    def spread(self) -> float:
        """The largest difference between two runs of the way to exec, as a part of it."""
        arms = ([boot.spans[TO_EXEC] for boot in boots] for boots in self.counted.values())
        return max((max(times) - min(times)) / median(times) for times in arms)

    def targets(self) -> list[Target]:
        """Hold what was measured against the project's targets. In an emulated KVM host the
        guest's clock runs on while the emulation works: its time is not judged."""
        took = {arm: self.spans(arm)[TO_EXEC] for arm in self.counted}
        mounts, shell = took["fcbuild"] / took["mounts"], took["shell"] / took["fcbuild"]
        found = [
            Target(
                f"{TO_EXEC}: fcbuild / mounts, at most {MOST_OF_MOUNTS:g}",
                mounts,
                mounts <= MOST_OF_MOUNTS,
            ),
            Target(
                f"{TO_EXEC}: shell / fcbuild, at least {LEAST_OF_SHELL:g}",
                shell,
                shell >= LEAST_OF_SHELL,
            ),
        ]
        if self.kvm == "native":
            end = medians(self.linked)[TO_END] / 1000
            found.append(Target(f"{TO_END}: ms, at most {MOST_TO_END:g}", end, end <= MOST_TO_END))
        return found

    def lines(self) -> Iterator[str]:
        """The result for people."""
        ours, runs = self.spans("fcbuild"), len(self.linked)
        yield f"Counted: ms at one instruction a nanosecond (fcbuild is 1); median of {runs}"
        yield f"{'':<8}" + "".join(f"{phase:>20}" for phase in ours)
        for arm in self.counted:
            spans = self.spans(arm).items()
            cells = (f"{us / 1000:.3f} ({us / ours[phase]:.3f})" for phase, us in spans)
            yield f"{arm:<8}" + "".join(f"{cell:>20}" for cell in cells)
        yield f"{TO_EXEC}: two runs differ by {self.spread():.1%} at most"
        boot, shell = self.counted["fcbuild"][0], self.counted["shell"][0]
        share = ours[TO_EXEC] / (ours[TO_INIT] + ours[TO_EXEC])
        yield f"PID 1 is {share:.1%} of the way to exec; {self.init_bytes} bytes"
        yield f"Its memory: {boot.resident} KiB, {boot.peak} at most (shell: {shell.resident})"
        yield ""
        yield f"In Firecracker, KVM {self.kvm}: ms of the guest's clock; median of {runs}, lowest"
        for phase, us in medians(self.linked).items():
            lowest = min(sample[phase] for sample in self.linked)
            yield f"{phase:<28}{us / 1000:>10.2f}{lowest / 1000:>10.2f}"
        yield ""
        for target in self.targets():
            met = "met" if target.met else "MISSED"
            yield f"{target.what:<46}{target.value:>8.2f}  {met}"

    def document(self) -> dict[str, Any]:
        """The result for programs."""
        return {
            "unit": "microseconds of the guest's clock",
            "pid1_bytes": self.init_bytes,
            "counted": {arm: [asdict(b) for b in boots] for arm, boots in self.counted.items()},
            "firecracker": {"kvm": self.kvm, "samples": list(self.linked)},
            "targets": [asdict(target) for target in self.targets()],
        }


def measure(bench: Bench, runs: int) -> Result:
    """Boot every arm `runs` times, the arms interleaved."""
    counted: dict[str, list[Boot]] = {arm: [] for arm in ARMS}
    linked = []
    for number in range(1, runs + 1):
        with progress.step(f"run {number} of {runs}"):
            for arm, program in ARMS.items():
                with tempfile.TemporaryDirectory(prefix="fcbuild-") as directory:
                    counted[arm].append(bench.count(program, Path(directory)))
            with tempfile.TemporaryDirectory(prefix="fcbuild-") as directory:
                linked.append(bench.link(Path(directory)))
    init_bytes = bench.init.file(BINARY["init"]).stat().st_size
    return Result(bench.host.kind, init_bytes, counted, linked)


def main() -> int:
    """Measure and report. Returns 1 for what failed, and with --check for a missed target."""
    parser = argparse.ArgumentParser(description="measure PID 1's part of a boot")
    parser.add_argument("--runs", type=int, default=3, help="boots of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    options = parser.parse_args()
    try:
        result = measure(prepare(), max(1, options.runs))
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result.document(), indent=2))
    else:
        print("\n".join(result.lines()))
    return int(options.check and not all(target.met for target in result.targets()))


if __name__ == "__main__":
    sys.exit(main())
