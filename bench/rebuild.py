"""Measure what a change of a fragment costs, beside a build from nothing.

    .venv/bin/python -m bench.rebuild [--kernel NAME] [--json] [--check] [LINE...]

Each LINE (an option that the kernel lacks) is added to a fragment of the kernel, and the kernel is
built three times: after the kernel without it, as a user would; in another place with nothing but
the compilers' results of before; and, once for all lines, from nothing: an empty store and cache,
of which only the source's archive is there. The first two must come to the same bytes.

Method. One build at a time, with as many compilers as the machine has processors. A busy machine
makes all of them slower, so only the ratios mean something. Cost: one cold build, and two more for
each LINE.
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
    """changed: with what the last build left; elsewhere: with the compilers' results only."""

    line: str
    changed: float
    elsewhere: float
    same: bool


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
        for number, line in enumerate(lines):
            place.fragment(line)
            other = Place(Path(scratch, f"other-{number}"))
            other.fragment(line)
            # Its own copy: the results of the first would be there for the second.
            shutil.copytree(place.cache / "ccache", other.cache / "ccache")
            with progress.step(f"{line}: after the kernel without it"):
                changed = place.build(kernel)
            with progress.step(f"{line}: elsewhere"):
                elsewhere = other.build(kernel)
            same = changed.digest == elsewhere.digest
            yield Change(line, changed.seconds, elsewhere.seconds, same)


def main() -> int:
    """Measure and report. Returns 1 for what failed, for bytes that differ, and with --check for a
    missed target."""
    parser = argparse.ArgumentParser(prog="bench.rebuild", description="measure kernel rebuilds")
    parser.add_argument("lines", nargs="*", default=LINES, metavar="LINE")
    parser.add_argument("--kernel", default="6.12/micro")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    options = parser.parse_args()
    cold, changes = 0.0, []
    try:
        for found in measure(options.kernel, options.lines):
            if isinstance(found, float):
                cold = found
                if not options.json:
                    print(f"{options.kernel} from nothing: {cold:.0f} s")
                continue
            changes.append(found)
            if not options.json:
                print(
                    f"  {found.line:<24} {found.changed / cold:.2f} times that, elsewhere "
                    f"{found.elsewhere / cold:.2f}, {'same' if found.same else 'OTHER'} bytes",
                    flush=True,
                )
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"cold": cold, "changes": [c._asdict() for c in changes]}, indent=1))
    missed = any(change.changed > MOST * cold for change in changes)
    wrong = not all(change.same for change in changes)
    return int(wrong or (options.check and missed))


if __name__ == "__main__":
    sys.exit(main())
