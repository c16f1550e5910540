"""Measure guest kernels: what it takes to come to process 1, how large they are, what memory they
leave; ours beside Firecracker's own configuration and the distribution's for clouds.

    .venv/bin/python -m bench.kernel [compare | groups] [--series SERIES] [--runs N] [--work DIR]
                                     [--json] [--check] [--firecracker-config FILE...]
                                     [--words WORDS]

    compare    the pipeline's micro, default and container kernels of a series, and the two others
               from the same source by the same compiler: Firecracker's CI configuration (fetched by
               its sha256, or from FILE...) and that of the distribution's kernel for clouds
    groups     what each group of options in `default` costs, as a Markdown table: each is left out
               once, the container fragment added once

Method. A busy machine makes times worthless, so instructions are counted (bench/counted.py). The
number that counts is Firecracker's own platform: an emulated KVM host under QEMU's -icount runs
Firecracker, and it the kernel, with one vCPU, 128 MiB, a drive, a vsock and a console, on the same
command line (the launcher's, and --words). Counted is everything that the host executes from the
start of the vCPU to the first act of process 1, at one instruction a nanosecond: the guest's own
instructions, those of KVM and Firecracker for each exit, and where the guest waits for a timer, the
time. The exits weigh about what they do on hardware: some thousand instructions each, for which a
processor takes a microsecond or two. Once the root is a drive with ext4, once an initrd, because a
kernel whose drivers are modules takes only that; process 1 is the same static program. As a
cross-check the initrd is booted in QEMU's microvm too, where nothing exits to anybody. Two runs of
one kernel differ by less than 0.1 %; the largest difference is shown. With usable KVM the same
Firecracker is timed as well, the kernels taking turns; the median and the lowest are shown.

Sizes are those of the stripped vmlinux, which has gaps in it: text and data begin at multiples of
2 MiB. "Content" leaves out the pages that hold nothing, so that the groups' costs show. MemFree is
read by process 1.

Cost: the first comparison compiles two large kernels (half an hour on two cores; kept, with --work)
and ours where the store lacks them; each run boots every kernel three times, of 10 to 60 s. groups
compiles `default` and, for each group, what depends on its options: an hour or more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench import counted, groups
from bench.counted import Rig
from bench.trees import Trees, content
from fcbuild import fetch, progress, spec
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import FcBuildError
from fcbuild.fetch import Source
from fcbuild.plan import KVM_HOST, Plan
from fcbuild.run import need
from fcbuild.series import KernelSpec
from fcbuild.store import Store
from fcbuild.vmm import firecracker, kvm

ROOT = Path(__file__).resolve().parent.parent
SERIES = "6.12"
THEIRS, CLOUD = "firecracker-ci", "cloud"

# Firecracker's own tests of release 1.12.1 boot what these two make together.
_CONFIGS = (
    (
        "microvm-kernel-ci-x86_64-6.1.config",
        "391d8d498f89e56b391be5ea4a7501ebc44e6d094331ecaabdefed1da6b28a96",
    ),
    ("ci.config", "2305c6dfa1866e2a8a6c38d0ca6f4b43adea4d4a99539b67e275a6a89278e9d5"),
)
# The two were made for a kernel whose ACPI is patched. That of this source does not come up without
# PCI, so there would be no root drive; Firecracker's configurations have it since 1.16.
_PCI = "CONFIG_PCI=y\n"
_URL = (
    "https://raw.githubusercontent.com/firecracker-microvm/firecracker/v1.12.1/resources/"
    "guest_configs/"
)

# The project's own targets by profile, times Firecracker's; and MiB of memory more than theirs.
MOST_BOOT = {"micro": 0.25, "default": 0.5}
MOST_SIZE = {"micro": 0.3, "default": 0.6}
LEAST_MEMORY = {"micro": 14}


def ours(series: str) -> dict[str, str]:
    """Return the names of the pipeline's kernels of a series, by profile."""
    return {"micro": f"{series}/micro", "default": series, "container": f"{series}/container"}


@dataclass
class Kernel:
    """A kernel, and what was measured. boot: on a drive; initrd, microvm: see the method; load:
    what Firecracker takes before the first instruction. Lists by run, in instructions."""

    name: str
    vmlinux: Path
    boot: list[int] = field(default_factory=list)
    initrd: list[int] = field(default_factory=list)
    load: list[int] = field(default_factory=list)
    microvm: list[int] = field(default_factory=list)
    native_ns: list[int] = field(default_factory=list)
    free_kib: int = 0

    @property
    def size(self) -> int:
        return self.vmlinux.stat().st_size

    @property
    def content(self) -> int:
        return content(self.vmlinux)

    @property
    def spread(self) -> float:
        """The largest difference between two runs, as a part of the median."""
        counts = (self.boot, self.initrd, self.microvm)
        return max(((max(c) - min(c)) / median(c) for c in counts if c), default=0.0)


@dataclass(frozen=True)
class Target:
    """One of the project's targets, and what was measured."""

    what: str
    value: float
    met: bool


def measure(kernel: Kernel, rig: Rig, words: str, *, drive: bool = True) -> None:
    """Boot a kernel once in each way, and add what it took."""
    if drive:
        on_drive = rig.counted(kernel.vmlinux, "disk", words)
        kernel.boot.append(on_drive.boot)
        kernel.load.append(on_drive.load)
    in_memory = rig.counted(kernel.vmlinux, "initrd", words)
    kernel.initrd.append(in_memory.boot)
    kernel.free_kib = (on_drive if drive else in_memory).free
    kernel.microvm.append(rig.microvm(kernel.vmlinux, words))


def targets(kernels: Mapping[str, Kernel], series: str) -> Iterator[Target]:
    """Hold what was measured against the targets."""
    theirs = kernels.get(THEIRS)
    if theirs is None:
        return
    names = ours(series)
    for profile, most in MOST_BOOT.items():
        value = median(kernels[names[profile]].boot) / median(theirs.boot)
        yield Target(f"{names[profile]}: boot, at most {most:g} times theirs", value, value <= most)
    for profile, most in MOST_SIZE.items():
        value = kernels[names[profile]].size / theirs.size
        yield Target(f"{names[profile]}: size, at most {most:g} times theirs", value, value <= most)
    for profile, least in LEAST_MEMORY.items():
        more = (kernels[names[profile]].free_kib - theirs.free_kib) / 1024
        yield Target(f"{names[profile]}: MiB free, at least {least} more", more, more >= least)


def lines(
    kernels: Mapping[str, Kernel], skipped: Mapping[str, str], held: Iterable[Target], runs: int
) -> Iterator[str]:
    """The comparison for people: a Markdown table, and the targets."""
    base = kernels.get(THEIRS, next(iter(kernels.values())))
    yield "Millions of instructions to process 1, and times " + base.name
    yield ""
    heads = ("Firecracker, drive", "Firecracker, initrd", "microvm", "load")
    yield f"| kernel | {' | '.join(heads)} | vmlinux, MB | content, MB | MiB free |"
    yield "| --- |" + " ---: |" * (len(heads) + 3)
    for kernel in kernels.values():
        cells = []
        for counts, others in (
            (kernel.boot, base.boot),
            (kernel.initrd, base.initrd),
            (kernel.microvm, base.microvm),
            (kernel.load, base.load),
        ):
            cells.append(_times(median(counts) / 1e6, median(others) / 1e6) if counts else "-")
        cells.append(_times(kernel.size / 1e6, base.size / 1e6))
        cells.append(_times(kernel.content / 1e6, base.content / 1e6))
        cells.append(f"{kernel.free_kib / 1024:.1f}")
        yield f"| {kernel.name} | {' | '.join(cells)} |"
    yield ""
    if runs > 1:
        spread = max(kernel.spread for kernel in kernels.values())
        yield f"Two runs of {runs} differ by {spread:.3%} at most."
    for name, why in skipped.items():
        yield f"{name} is left out: {why}"
    for kernel in kernels.values():
        if times := kernel.native_ns:
            lowest = min(times) / 1e6
            yield f"{kernel.name}: {median(times) / 1e6:.1f} ms on KVM, lowest {lowest:.1f}"
    for target in held:
        met = "met" if target.met else "MISSED"
        yield f"{target.what:<48}{target.value:>8.3f}  {met}"


def _times(value: float, other: float) -> str:
    return f"{value:.2f} ({value / other:.2f})"


@dataclass(frozen=True)
class Bench:
    pipeline: Pipeline
    trees: Trees
    rig: Rig
    words: str

    def compared(self, files: Sequence[Path]) -> tuple[dict[str, Kernel], dict[str, str]]:
        """Have all kernels, and why one is left out."""
        kernels, skipped = {}, {}
        for name in ours(self.trees.spec.name).values():
            kernels[name] = Kernel(name, self.pipeline.kernel(name)[0].file("vmlinux"))
        for name in (THEIRS, CLOUD):
            try:
                theirs = name == THEIRS
                config = self._firecracker(files) if theirs else self.trees.cloud_config()
                kernels[name] = Kernel(name, self.trees.build(name, config).vmlinux)
            except FcBuildError as error:
                skipped[name] = error.message
        return kernels, skipped

    def _firecracker(self, files: Sequence[Path]) -> str:
        def way(name: str, sha256: str) -> Source:
            url = _URL + name
            return Source(title=url, sha256=sha256, fetch=lambda to: fetch.download(url, to))

        downloads = self.pipeline.downloads
        paths = files or [
            fetch.obtain(name, [way(name, sha256)], downloads)[0] for name, sha256 in _CONFIGS
        ]
        return "\n".join([*(path.read_text(encoding="utf-8") for path in paths), _PCI])


def compare(bench: Bench, files: Sequence[Path], runs: int) -> tuple[list[str], list[Target], str]:
    """Measure; return the text for people, the targets, and a document for programs."""
    kernels, skipped = bench.compared(files)
    for number in range(1, runs + 1):
        for kernel in kernels.values():
            with progress.step(f"run {number} of {runs}: {kernel.name}"):
                measure(kernel, bench.rig, bench.words, drive=kernel.name != CLOUD)
    if kvm.trouble() is None:
        for _ in range(10 * runs):
            for kernel in kernels.values():
                boot = bench.rig.native(kernel.vmlinux, "initrd", bench.words).boot
                kernel.native_ns.append(boot)
    found = list(targets(kernels, bench.trees.spec.name))
    document = {
        "kernels": [
            {**asdict(kernel), "vmlinux": kernel.size, "content": kernel.content}
            for kernel in kernels.values()
        ],
        "skipped": skipped,
        "targets": list(map(asdict, found)),
    }
    return list(lines(kernels, skipped, found, runs)), found, json.dumps(document, indent=1)


def prepare(series: str, work: Path, words: str) -> Bench:
    """Have the programs, and what they stand on. Raises FcBuildError."""
    plan = Plan(spec.load(ROOT))
    kernels = plan.specs.kernels
    source = kernels.get(series)
    if not isinstance(source, KernelSpec) or not kernels.keys() >= set(ours(series).values()):
        known = [name for name in kernels if kernels.keys() >= set(ours(name).values())]
        raise FcBuildError(f"no series {series} to compare", hint=f"there are {', '.join(known)}")
    store = Path(os.environ.get("FCBUILD_STORE") or ROOT / "artifacts" / "store")
    pipeline = Pipeline(plan, Store(store.resolve()), Docker())
    rig = Rig(
        qemu=need("qemu-system-x86_64", "qemu-system-x86"),
        host_kernel=pipeline.kernel(KVM_HOST)[0].file("vmlinux"),
        firecracker=firecracker.find(pipeline.downloads).path,
        directory=work / "rig",
    )
    rig.directory.mkdir(parents=True, exist_ok=True)
    workshop = pipeline.workshop()
    counted.prepare(workshop.engine, workshop.toolchain, rig.directory)
    return Bench(pipeline, Trees(workshop, source, work), rig, words)


def main() -> int:
    """Measure and report. Returns 1 for what failed, and with --check for a missed target."""
    parser = argparse.ArgumentParser(prog="bench.kernel", description="measure guest kernels")
    parser.add_argument("what", nargs="?", choices=("compare", "groups"), default="compare")
    parser.add_argument("--series", default=SERIES, help=f"of kernels/ (default: {SERIES})")
    parser.add_argument("--runs", type=int, default=2, help="boots of each kind (default: 2)")
    parser.add_argument("--work", type=Path, help="keep source and objects there")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    parser.add_argument("--firecracker-config", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--words", default="", help="further words of the command line, for all")
    options = parser.parse_args()
    found: list[Target] = []
    try:
        with ExitStack() as undo:
            scratch = options.work or undo.enter_context(
                tempfile.TemporaryDirectory(prefix="bench-")
            )
            bench = prepare(options.series, Path(scratch).resolve(), options.words)
            if options.what == "groups":
                for line in groups.table(bench.trees, bench.rig, bench.words):
                    print(line, flush=True)
            else:
                runs = max(1, options.runs)
                text, found, document = compare(bench, options.firecracker_config, runs)
                print(document if options.json else "\n".join(text))
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(options.check and not all(target.met for target in found))


if __name__ == "__main__":
    sys.exit(main())
