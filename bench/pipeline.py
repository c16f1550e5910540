"""Measure the pipeline: how long our part takes, beside what it could not do without.

    .venv/bin/python -m bench.pipeline [SECTION ...] [--runs N] [--json] [--check]

Sections, all of them when none is named:

    rootfs     from an image in the engine to a root filesystem in the store, against the engine's
               own export of the same files to a tar; debian-web, and 2 GiB in 60,000 files
    rebuild    `doit build` after a change of one file, against the engine's cached build and export
    parallel   four images one after the other, against `-n 4`, when one of them waits

Method. The two sides of a ratio run in turn, and the ratio of each pair is taken; shown is the
median of the ratios, then the medians of the times that they come from. Times alone mean nothing:
machines are shared. All is done in directories below TMPDIR, with a store that has the base images
and PID 1 of the real one.

Cost: grows in proportion to N. The 2 GiB are made once, by the engine (half a minute), and need
three times their size of disk.
"""

# ruff: noqa: E402 (the path to fcbuild has to be there before it is imported)

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fcbuild import progress, spec
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import FcBuildError
from fcbuild.plan import Plan
from fcbuild.run import run
from fcbuild.store import Store
from fcbuild.tables import MIB

ROOT = HERE.parent
STORE = Path(os.environ.get("FCBUILD_STORE") or ROOT / "artifacts" / "store").resolve()
TIMEOUT_S = 1800.0

# 60,000 files of 35,791 random bytes, 300 to a directory.
BIG = """FROM fcbuild/debian-base
RUN perl -e 'open R, "<", "/dev/urandom"; for $i (0 .. 59999) { \\
    mkdir "/srv/" . int $i / 300 unless $i % 300; read R, $b, 35791; \\
    open F, ">", "/srv/" . int($i / 300) . "/$i"; print F $b; close F }'
CMD ["true"]
"""


@dataclass(frozen=True)
class Ratio:
    """Two sides, measured in turn. ours, others: seconds, run by run; most: the target."""

    what: str
    ours: Sequence[float]
    others: Sequence[float]
    most: float

    @property
    def value(self) -> float:
        return median(ours / other for ours, other in zip(self.ours, self.others, strict=True))

    @property
    def met(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        return (
            f"{self.what:<52} {self.value:5.2f}  at most {self.most:g}: {verdict(self.met)}"
            f"   ({median(self.ours):.2f} s, {median(self.others):.2f} s)"
        )


@dataclass(frozen=True)
class Memory:
    """The most memory that our process had, in bytes."""

    what: str
    value: int
    most: int

    @property
    def met(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        return (
            f"{self.what:<52} {self.value // MIB:>5}  at most {self.most // MIB} MiB: "
            f"{verdict(self.met)}"
        )


Finding = Ratio | Memory


def verdict(met: bool) -> str:  # noqa: FBT001
    return "met" if met else "MISSED"


class Checkout:
    """A checkout and a store for one benchmark, below a directory that is gone afterwards."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        self.store = directory / "store"
        for part in ("fcbuild", "images", "kernels", "bench"):
            shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__*__"))
        for file in ("dodo.py", "pyproject.toml"):
            shutil.copy(ROOT / file, self.root)
        for kind in ("base", "init", "kernel"):
            (self.store / "objects").mkdir(parents=True, exist_ok=True)
            (STORE / "objects" / kind).mkdir(parents=True, exist_ok=True)
            (self.store / "objects" / kind).symlink_to(STORE / "objects" / kind)

    def image(self, name: str, dockerfile: str) -> None:
        directory = self.root / "images" / name
        directory.mkdir()
        (directory / "image.toml").write_text("")
        (directory / "Dockerfile").write_text(dockerfile)

    def pipeline(self) -> Pipeline:
        return Pipeline(Plan(spec.load(self.root)), Store(self.store), Docker())

    def forget(self) -> None:
        """Have no root filesystem any more."""
        shutil.rmtree(self.store / "objects" / "rootfs", ignore_errors=True)

    def python(self, *argv: str) -> str:
        """Run Python in the checkout; return what it prints."""
        log = self.root.parent / "log"
        with log.open("w+b") as file:
            env = {"FCBUILD_STORE": str(self.store), "FCBUILD_LOCKED": "0"}
            command = ["env", "-C", str(self.root), sys.executable, *argv]
            what = f"running {' '.join(argv)}"
            run(command, what=what, env=env, log=file, log_path=log, timeout_s=TIMEOUT_S)
        return log.read_text(encoding="utf-8", errors="replace")

    def doit(self, *argv: str) -> None:
        self.python("-m", "doit", *argv)


def timed(work: Callable[..., object], *args: object) -> float:
    started = time.monotonic()
    work(*args)
    return time.monotonic() - started


def rootfs(runs: int) -> Iterator[Finding]:
    """The image's files, from the engine into the store."""
    with tempfile.TemporaryDirectory(prefix="fcbuild-") as directory:
        checkout = Checkout(Path(directory))
        checkout.image("big", BIG)
        pipeline = checkout.pipeline()
        pipeline.toolchain()
        for name, what in (("debian-web", "debian-web"), ("big", "2 GiB in 60,000 files")):
            pipeline.container(name)
            pipeline.program(pipeline.plan.init)
            tar = Path(directory, "tar")
            ours, others, memory = [], [], 0
            for number in range(runs):
                with progress.step(f"rootfs: {what}: {number + 1} of {runs}"):
                    others.append(timed(export, pipeline, name, tar))
                    tar.unlink()
                    checkout.forget()
                    said = checkout.python("-m", "bench.pipeline", "--one-rootfs", name)
                    seconds, peak = json.loads(said.splitlines()[-1])
                    ours.append(seconds)
                    memory = max(memory, peak)
            yield Ratio(f"rootfs in the store / export to a tar: {what}", ours, others, 1.6)
            yield Memory(f"memory: {what}", memory, 150 * MIB)


def export(pipeline: Pipeline, name: str, to: Path) -> None:
    with to.open("wb") as tar, to.with_name("export.log").open("wb") as log:
        tag = pipeline.plan.container(name).tag
        pipeline.engine.export(tag, tar, log=log, log_path=to.with_name("export.log"))


def one_rootfs(name: str) -> None:
    """Make one root filesystem of this checkout; print the seconds, and the peak of memory."""
    pipeline = Pipeline(Plan(spec.load(Path.cwd())), Store(STORE), Docker())
    seconds = timed(pipeline.rootfs, name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([seconds, peak]))


def rebuild(runs: int) -> Iterator[Finding]:
    """A page of debian-web is another: what doit takes, and what the engine takes."""
    with tempfile.TemporaryDirectory(prefix="fcbuild-") as directory:
        checkout = Checkout(Path(directory))
        page = checkout.root / "images" / "debian-web" / "index.html"
        text = page.read_text(encoding="utf-8")
        checkout.doit("rootfs:debian-web")
        ours, others = [], []
        for number in range(runs):
            with progress.step(f"rebuild: {number + 1} of {runs}"):
                page.write_text(f"{text}<!-- {time.time_ns()} of the engine -->\n")
                others.append(timed(engines, checkout.pipeline(), Path(directory)))
                page.write_text(f"{text}<!-- {time.time_ns()} of ours -->\n")
                ours.append(timed(checkout.doit, "rootfs:debian-web"))
        yield Ratio("rebuild after a change / engine's build and export", ours, others, 1.3)


def engines(pipeline: Pipeline, directory: Path) -> None:
    """What nobody gets around: a build of what changed, and the export of all files."""
    pipeline.container("debian-web")
    export(pipeline, "debian-web", directory / "tar")


def parallel(runs: int) -> Iterator[Finding]:
    """Four images, of which one waits for something far away."""
    waits = "RUN sleep 12\n"
    with tempfile.TemporaryDirectory(prefix="fcbuild-") as directory:
        checkout = Checkout(Path(directory))
        checkout.doit("rootfs:hello")
        names = [f"side-{number}" for number in range(4)]
        for name in names:
            checkout.image(name, "FROM scratch\n")
        ours: list[float] = []
        others: list[float] = []
        for number in range(runs):
            with progress.step(f"parallel: {number + 1} of {runs}"):
                for times, argv in ((others, []), (ours, ["-n", "4"])):
                    for name in names:
                        text = f"FROM fcbuild/debian-base\nRUN echo {time.time_ns()} > /new\n"
                        text += waits if name == names[0] else ""
                        path = checkout.root / "images" / name / "Dockerfile"
                        path.write_text(text + 'CMD ["true"]\n')
                    wanted = [f"rootfs:{name}" for name in names]
                    times.append(timed(checkout.doit, "run", *argv, *wanted))
        yield Ratio("four images, -n 4 / one after the other", ours, others, 0.6)


SECTIONS: dict[str, Callable[[int], Iterator[Finding]]] = {
    "rootfs": rootfs,
    "rebuild": rebuild,
    "parallel": parallel,
}


def main() -> int:
    """Measure and report. Returns 1 for what failed, and with --check for a missed target."""
    parser = argparse.ArgumentParser(description="measure the pipeline's part of a build")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=3, help="pairs of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    parser.add_argument("--one-rootfs", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_rootfs:
        one_rootfs(options.one_rootfs)
        return 0
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    found: list[Finding] = []
    try:
        for name in options.sections or SECTIONS:
            for finding in SECTIONS[name](max(1, options.runs)):
                found.append(finding)
                if not options.json:
                    print(finding, flush=True)
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([{**asdict(f), "value": f.value, "met": f.met} for f in found], indent=2))
    return int(options.check and not all(finding.met for finding in found))


if __name__ == "__main__":
    sys.exit(main())
