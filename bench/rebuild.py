"""Measure what a change of a fragment costs, beside a build from nothing.

    .venv/bin/python -m bench.rebuild [--kernel NAME] [--json] [--check] [LINE...]

The kernel is built from nothing: an empty store and cache, of which only the source's archive is
there. Then each LINE (an option that the kernel lacks) takes the place of the one before in a
fragment of the kernel, and it is built again, as a user would. The last one is built in another
place, too, where nothing but the compilers' results are: that has to come to the same bytes.

Method. One build at a time, with as many compilers as the machine has processors. A busy machine
makes all of them slower, so only the ratios mean something. Cost: one cold build and, where the
last LINE touches much, nearly another.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fcbuild import progress, spec
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import FcBuildError
from fcbuild.plan import Plan
from fcbuild.series import KERNEL_FILE
from fcbuild.store import Store

ROOT = Path(__file__).resolve().parent.parent
STORE = Path(os.environ.get("FCBUILD_STORE") or ROOT / "artifacts" / "store").resolve()
FRAGMENT = Path("kernels/fragments/net.config")

# A file system of its own, an option that headers of the whole network read, and one of memory.
LINES = ("CONFIG_FUSE_FS=y", "CONFIG_IP_MROUTE=y", "CONFIG_KSM=y")

MOST = 0.25  # the project's own target, times a cold build


class Built(NamedTuple):
    """seconds: what the build took; digest: sha256 of the kernel file."""

    seconds: float
    digest: str


class Change(NamedTuple):
    """seconds: after the build before. same: as a build elsewhere, of the last one only."""

    line: str
    seconds: float
    same: bool | None = None


class Place:
    """A checkout and an empty store, with the archives of the real one."""

    def __init__(self, directory: Path) -> None:
        self.root, self.store = directory / "checkout", directory / "store"
        for part in ("fcbuild", "kernels"):
            shutil.copytree(ROOT / part, self.root / part, symlinks=True)
        (self.root / "images").mkdir()
        self.store.mkdir(parents=True)
        (self.store / "downloads").symlink_to(STORE / "downloads")
        self.cache = directory / "store-cache"

    def build(self, kernel: str) -> Built:
        pipeline = Pipeline(Plan(spec.load(self.root)), Store(self.store), Docker())
        arch = pipeline.plan.specs.kernels[kernel].arch
        started = time.monotonic()
        artifact = pipeline.kernel(kernel)[0]
        return Built(time.monotonic() - started, artifact.digests[KERNEL_FILE[arch]])

    def fragment(self, line: str) -> None:
        text = (ROOT / FRAGMENT).read_text(encoding="utf-8")
        (self.root / FRAGMENT).write_text(f"{text}{line}\n", encoding="utf-8")


def measure(kernel: str, lines: Sequence[str]) -> Iterator[float | Change]:
    """Yield the seconds of a cold build, then what each line takes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        place = Place(Path(scratch, "one"))
        with progress.step("from nothing"):
            yield place.build(kernel).seconds
        for number, line in enumerate(lines, 1):
            place.fragment(line)
            with progress.step(line):
                changed = place.build(kernel)
            same = None
            if number == len(lines):
                other = Place(Path(scratch, "other"))
                other.fragment(line)
                shutil.copytree(place.cache / "ccache", other.cache / "ccache")
                with progress.step(f"{line}, elsewhere"):
                    same = other.build(kernel).digest == changed.digest
            yield Change(line, changed.seconds, same)


def main() -> int:
    """Measure and report. Returns 1 for what failed, for bytes that differ, and with --check for a
    missed target."""
    parser = argparse.ArgumentParser(prog="bench.rebuild", description="measure kernel rebuilds")
    parser.add_argument("lines", nargs="*", default=LINES, metavar="LINE")
    parser.add_argument("--kernel", default="6.12/micro")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    options = parser.parse_args()
    cold = 0.0
    changes: list[Change] = []
    try:
        for found in measure(options.kernel, options.lines):
            if isinstance(found, float):
                cold = found
                if not options.json:
                    print(f"{options.kernel} from nothing: {cold:.0f} s")
                continue
            changes.append(found)
            if not options.json:
                told = {None: "", True: ", same bytes elsewhere", False: ", OTHER BYTES elsewhere"}
                print(f"  {found.line:<24}{found.seconds / cold:6.2f} times that{told[found.same]}")
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"cold": cold, "changes": [c._asdict() for c in changes]}, indent=1))
    missed = any(change.seconds > MOST * cold for change in changes)
    wrong = any(change.same is False for change in changes)
    return int(wrong or (options.check and missed))


if __name__ == "__main__":
    sys.exit(main())
