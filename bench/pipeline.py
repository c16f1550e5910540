"""Measure the pipeline, a section at a time: what our part takes, beside what it cannot do without.

    .venv/bin/python -m bench.pipeline [SECTION...] [--runs N] [--json] [--check]

    plan       `doit plan` of 100 images with 10,000 files, made up in a temporary directory:
               cold (no file's digest is known), warm (all are), and how both grow with the files
    nochange   `doit build` with nothing to do, against `doit list` of an empty dodo file
    rootfs     from an image in the engine to a root filesystem in the store, against the engine's
               own export of the same files to a tar; debian-web, and 2 GiB in 60,000 files
    rebuild    `doit build` after a change of one file, against the engine's cached build and export
    parallel   four images one after the other, against `-n 4`, when one of them waits

Method. The two sides of a ratio take turns, so that whatever else the machine does meets both
alike; shown is the median of the pairs' ratios, and the medians of the times that they come from.
Times alone mean nothing: machines are shared. All but `nochange`, which takes the images that the
store holds, works in directories below TMPDIR, on a store that has the bases, kernels and PID 1 of
the real one.

Cost: grows in proportion to N. The 2 GiB are made once, by the engine (half a minute), and need
three times their size of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import IO

from fcbuild import progress, spec
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import FcBuildError
from fcbuild.plan import Plan
from fcbuild.run import run
from fcbuild.store import Store

ROOT = Path(__file__).resolve().parent.parent
STORE = Path(os.environ.get("FCBUILD_STORE") or ROOT / "artifacts" / "store").resolve()
TIMEOUT_S = 1800.0

IMAGES, FILES = 100, 10_000

# The project's own targets: seconds, times, MiB.
MOST_WARM = 0.5
MOST_NOCHANGE = 1.3
MOST_ROOTFS = 1.6
MOST_MEMORY = 150
MOST_REBUILD = 1.3
MOST_PARALLEL = 0.6

# 60,000 files of 35,791 random bytes, 300 to a directory.
BIG = """FROM fcbuild/debian-base
RUN perl -e 'open R, "<", "/dev/urandom"; for $i (0 .. 59999) { \\
    mkdir "/srv/" . int $i / 300 unless $i % 300; read R, $b, 35791; \\
    open F, ">", "/srv/" . int($i / 300) . "/$i"; print F $b; close F }'
CMD ["true"]
"""


@dataclass(frozen=True)
class Finding:
    """One line of a section. value: in the unit. most: the target, None where there is none."""

    name: str
    value: float
    unit: str
    most: float | None = None
    note: str = ""

    @property
    def good(self) -> bool:
        return self.most is None or self.value <= self.most


def ratio(name: str, ours: Sequence[float], others: Sequence[float], most: float) -> Finding:
    """Return the median of the pairs' ratios."""
    value = median(our / other for our, other in zip(ours, others, strict=True))
    note = f"{median(ours):.2f} s / {median(others):.2f} s"
    return Finding(name, value, "times", most, note)


class Checkout:
    """A checkout of this program, and a store, below a directory that is gone afterwards."""

    def __init__(self, directory: Path, *, images: bool = True) -> None:
        self.root = directory / "checkout"
        self.store = directory / "store"
        ignored = shutil.ignore_patterns("__pycache__")
        for part in ("fcbuild", "kernels", "bench", *(["images"] if images else [])):
            shutil.copytree(ROOT / part, self.root / part, ignore=ignored, symlinks=True)
        for file in ("dodo.py", "pyproject.toml"):
            shutil.copy(ROOT / file, self.root)
        (self.root / "images").mkdir(exist_ok=True)
        for kind in ("base", "init", "kernel"):
            (STORE / "objects" / kind).mkdir(parents=True, exist_ok=True)
            (self.store / "objects").mkdir(parents=True, exist_ok=True)
            (self.store / "objects" / kind).symlink_to(STORE / "objects" / kind)

    def image(self, name: str, dockerfile: str) -> Path:
        """Add an image; return its directory."""
        directory = self.root / "images" / name
        directory.mkdir()
        (directory / "image.toml").write_text('description = "made up"\n')
        (directory / "Dockerfile").write_text(dockerfile)
        return directory

    def pipeline(self) -> Pipeline:
        return Pipeline(Plan(spec.load(self.root)), Store(self.store), Docker())

    def python(self, *argv: str) -> str:
        """Run Python here; return what it prints. Raises CommandFailed."""
        return python(self.root, self.store, *argv)

    def doit(self, *argv: str) -> None:
        self.python("-m", "doit", *argv)


def python(directory: Path, store: Path, *argv: str) -> str:
    """Run Python in a directory; return what it prints. Raises CommandFailed."""
    with tempfile.NamedTemporaryFile(prefix="bench-", buffering=0) as log:
        # What is not locked may be built: these images are made up.
        env = {"FCBUILD_STORE": str(store), "FCBUILD_LOCKED": "0"}
        run(
            ["env", "-C", directory, sys.executable, *argv],
            what=f"python {' '.join(argv)}",
            env=env,
            log=log.file,
            log_path=Path(log.name),
            timeout_s=TIMEOUT_S,
        )
        return Path(log.name).read_text(encoding="utf-8", errors="replace")


def timed(work: Callable[..., object], *args: object) -> float:
    """Do something; return the seconds that it took."""
    started = time.monotonic()
    work(*args)
    return time.monotonic() - started


def plan(runs: int) -> Iterator[Finding]:
    """Plan images whose contexts grow, cold and warm."""
    for files in (FILES // 10, FILES // 2, FILES):
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            checkout = Checkout(Path(scratch), images=False)
            for number in range(IMAGES):
                dockerfile = 'FROM scratch\nCOPY . /\nCMD ["/x"]\n'
                fill(checkout.image(f"image-{number}", dockerfile), files // IMAGES)
            # Files that were written just now are not trusted to be what they were.
            threading.Event().wait(0.2)
            memory = checkout.root / "artifacts" / "digests.json"
            cold, warm = [], []
            for _ in range(runs):
                memory.unlink(missing_ok=True)
                cold.append(timed(checkout.doit, "plan"))
                warm.append(timed(checkout.doit, "plan"))
        most = MOST_WARM if files == FILES else None
        yield Finding(f"cold, {files} files", median(cold), "s")
        yield Finding(f"warm, {files} files", median(warm), "s", most)


def fill(directory: Path, files: int) -> None:
    """Put files into a context, in ten directories."""
    for file in range(files):
        path = directory / f"part-{file % 10}" / f"file-{file}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{directory.name} {file}\n" * 100)


def nochange(runs: int) -> Iterator[Finding]:
    """Build what is built, and list nothing."""
    plan = Plan(spec.load(ROOT))
    store = Store(STORE)
    stored = [
        name
        for name in plan.bootable()
        if store.find(plan.rootfs(name)) and store.find(plan.kernel(plan.specs.images[name].kernel))
    ]
    if not stored:
        raise FcBuildError("the store holds no image of this checkout", hint="doit build")
    build = ("-m", "doit", "build", f"image={','.join(stored)}")
    python(ROOT, STORE, *build)  # links what is not linked
    with tempfile.TemporaryDirectory(prefix="bench-") as empty:
        Path(empty, "dodo.py").touch()
        ours, others = [], []
        for _ in range(5 * runs):  # they are short
            others.append(timed(python, Path(empty), STORE, "-m", "doit", "list"))
            ours.append(timed(python, ROOT, STORE, *build))
    yield ratio(f"doit build, {len(stored)} images / doit list, empty", ours, others, MOST_NOCHANGE)


def rootfs(runs: int) -> Iterator[Finding]:
    """The image's files, from the engine into the store."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        checkout = Checkout(Path(scratch))
        checkout.image("big", BIG)
        pipeline = checkout.pipeline()
        pipeline.toolchain()
        pipeline.program(pipeline.plan.init)
        for name, what in (("debian-web", "debian-web"), ("big", "2 GiB in 60,000 files")):
            pipeline.container(name)
            ours, others, peaks = [], [], []
            for number in range(runs):
                with progress.step(f"rootfs: {what}: {number + 1} of {runs}"):
                    others.append(timed(export, pipeline, name, Path(scratch)))
                    shutil.rmtree(checkout.store / "objects" / "rootfs", ignore_errors=True)
                    said = checkout.python("-m", "bench.pipeline", "--one-rootfs", name)
                    took, peak = json.loads(said.splitlines()[-1])
                    ours.append(took)
                    peaks.append(peak)
            yield ratio(f"in the store / a tar: {what}", ours, others, MOST_ROOTFS)
            yield Finding(f"memory: {what}", max(peaks) / 1024, "MiB", MOST_MEMORY)


def export(pipeline: Pipeline, name: str, scratch: Path) -> None:
    """Have the engine's own command, with no setting of ours, write an image's files to a tar."""
    dockerfile = f"FROM {pipeline.plan.container(name).tag}\n".encode()

    def fill(stdin: IO[bytes]) -> None:
        stdin.write(dockerfile)

    with (scratch / "tar").open("wb") as tar:
        run(
            [_command(), "build", "--output", "type=tar,dest=-", "-"],
            what=f"exporting {name}",
            env={"DOCKER_BUILDKIT": "1"},
            stdin=fill,
            stdout=tar,
            timeout_s=TIMEOUT_S,
        )
    (scratch / "tar").unlink()


@cache
def _command() -> str:
    return Docker().cli


def one_rootfs(name: str) -> None:
    """Make one root filesystem of this checkout; print the seconds and the most memory, in KiB,
    that a process of ours had."""
    pipeline = Pipeline(Plan(spec.load(Path.cwd())), Store(STORE), Docker())
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        packing = pool.submit(most_of_children, done)
        took = timed(pipeline.rootfs, name)
        done.set()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([took, max(own, packing.result())]))


def most_of_children(done: threading.Event) -> int:
    """Return the most memory, in KiB, that a child of ours in Python had. The kernel keeps each
    one's peak until it ends, so looking now and then misses little; getrusage(2) would count the
    engine's command too."""
    most = 0
    while not done.wait(0.02):
        for listed in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):  # it ended meanwhile
                for child in listed.read_text(encoding="ascii").split():
                    if Path("/proc", child, "exe").samefile(sys.executable):
                        status = Path("/proc", child, "status").read_text(encoding="utf-8")
                        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
                        most = max(most, int(found[1]) if found else 0)
    return most


def rebuild(runs: int) -> Iterator[Finding]:
    """A page of debian-web is another: what doit takes, and what the engine takes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        checkout = Checkout(Path(scratch))
        page = checkout.root / "images" / "debian-web" / "index.html"
        text = page.read_text(encoding="utf-8")
        checkout.doit("build", "image=debian-web")
        ours, others = [], []
        for number in range(runs):
            with progress.step(f"rebuild: {number + 1} of {runs}"):
                page.write_text(f"{text}<!-- {time.time_ns()} of the engine -->\n")
                others.append(timed(engines, checkout.pipeline(), Path(scratch)))
                page.write_text(f"{text}<!-- {time.time_ns()} of ours -->\n")
                ours.append(timed(checkout.doit, "build", "image=debian-web"))
        yield ratio("doit build / the engine's build and export", ours, others, MOST_REBUILD)


def engines(pipeline: Pipeline, scratch: Path) -> None:
    """What nobody gets around: a build of what changed, and the export of all files."""
    pipeline.container("debian-web")
    export(pipeline, "debian-web", scratch)


def parallel(runs: int) -> Iterator[Finding]:
    """Four images, of which one waits, as for something far away: about as long as the other three
    take, for more would only measure the waiting."""
    names = [f"side-{number}" for number in range(4)]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        checkout = Checkout(Path(scratch))
        checkout.doit("build", "image=hello")
        places = {name: checkout.image(name, "FROM scratch\n") for name in names}
        ours: list[float] = []
        others: list[float] = []
        for number in range(runs):
            with progress.step(f"parallel: {number + 1} of {runs}"):
                for times, options in ((others, []), (ours, ["-n", "4"])):
                    for name, directory in places.items():
                        waits = "RUN sleep 5\n" if name == names[0] else ""
                        text = f"FROM fcbuild/debian-base\nRUN echo {time.time_ns()} > /new\n"
                        path = directory / "Dockerfile"
                        path.write_text(f'{text}{waits}CMD ["true"]\n')
                    wanted = [f"rootfs:{name}" for name in names]
                    times.append(timed(checkout.doit, "run", *options, *wanted))
        yield ratio("-n 4 / one after the other", ours, others, MOST_PARALLEL)


# Every section by its name; --check holds all of its findings to their targets.
SECTIONS: Mapping[str, Callable[[int], Iterator[Finding]]] = {
    "plan": plan,
    "nochange": nochange,
    "rootfs": rootfs,
    "rebuild": rebuild,
    "parallel": parallel,
}


def line(finding: Finding) -> str:
    """Return a finding as people read it."""
    target = "" if finding.most is None else f"  at most {finding.most:g}: "
    verdict = "" if finding.most is None else "met" if finding.good else "MISSED"
    note = f"   ({finding.note})" if finding.note else ""
    return f"  {finding.name:<46} {finding.value:8.2f} {finding.unit:<5}{target}{verdict}{note}"


def main() -> int:
    """Measure and report. Returns the exit status, as `report` does."""
    parser = arguments("bench.pipeline", SECTIONS)
    parser.add_argument("--one-rootfs", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_rootfs:
        one_rootfs(options.one_rootfs)
        return 0
    return report(parser, options, SECTIONS)


def arguments(prog: str, sections: Iterable[str]) -> argparse.ArgumentParser:
    """Return what a benchmark of sections understands."""
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("section", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--runs", type=int, default=3, help="of each thing that is measured")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    return parser


def report(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    sections: Mapping[str, Callable[[int], Iterator[Finding]]],
) -> int:
    """Measure the sections that are asked for, and print what was found. Returns 1 for what failed,
    and with --check for a missed target."""
    if unknown := set(options.section) - sections.keys():
        parser.error(f"no section {', '.join(sorted(unknown))}; known: {', '.join(sections)}")
    found: dict[str, list[Finding]] = {}
    try:
        for section in options.section or sections:
            if not options.json:
                print(section)
            for finding in sections[section](max(options.runs, 1)):
                found.setdefault(section, []).append(finding)
                if not options.json:
                    print(line(finding), flush=True)
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({name: list(map(asdict, all_)) for name, all_ in found.items()}, indent=1))
    missed = [finding for findings in found.values() for finding in findings if not finding.good]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
