"""Measure the pipeline, a section at a time, each as ratios of what is measured side by side.

    .venv/bin/python -m bench.pipeline [SECTION...] [--runs N] [--json] [--check]

    plan       `doit plan` of 100 images with 10,000 files, made up in a temporary directory:
               cold (no file's digest is known), warm (all are), and how both grow with the files
    nochange   `doit build` with nothing to do, against `doit list` of an empty dodo file

Method. Each time is that of a whole process, as a user waits for it. What is compared takes turns,
so that whatever else the machine does meets both alike, and medians are shown. No engine is asked
and no network; `nochange` builds nothing and takes the images that the store holds.

Cost: plan writes 20,000 small files and takes about 30 s; nochange takes as many seconds as there
are runs, divided by 4. Nothing is written but a private directory in TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from fcbuild import spec
from fcbuild.errors import FcBuildError
from fcbuild.plan import Plan
from fcbuild.store import Store

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 300.0

IMAGES, FILES = 100, 10_000
# The project's own targets: a warm plan in seconds, and a build that has nothing to do in times of
# what doit itself takes for an empty dodo file.
MOST_WARM_S = 0.5
MOST_NOCHANGE = 1.3


@dataclass(frozen=True)
class Finding:
    """One line of a section. value: in the unit. most: the target, None where there is none."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def good(self) -> bool:
        return self.most is None or self.value <= self.most


Section = Callable[[int], list[Finding]]


def plan(runs: int) -> list[Finding]:
    """Plan images whose contexts grow, cold and warm."""
    found = []
    for files in (FILES // 10, FILES // 2, FILES):
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            checkout = made_up(Path(scratch), IMAGES, files)
            memory = checkout / "artifacts" / "digests.json"
            cold, warm = [], []
            for _ in range(runs):
                memory.unlink(missing_ok=True)
                cold.append(seconds(checkout, "plan"))
                warm.append(seconds(checkout, "plan"))
        last = files == FILES
        found.append(Finding(f"cold, {files} files", median(cold), "s"))
        most = MOST_WARM_S if last else None
        found.append(Finding(f"warm, {files} files", median(warm), "s", most))
    return found


def nochange(runs: int) -> list[Finding]:
    """Build what is built, and list nothing."""
    plan = Plan(spec.load(ROOT))
    store = Store(Path(os.environ.get("FCBUILD_STORE") or ROOT / "artifacts" / "store"))
    stored = [name for name in plan.bootable() if store.find(plan.rootfs(name))]
    if not stored:
        raise FcBuildError("the store holds no image of this checkout", hint="doit build")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        empty = Path(scratch)
        (empty / "dodo.py").touch()
        build = ("build", f"image={','.join(stored)}")
        seconds(ROOT, *build)  # links what is not linked
        ours, theirs = [], []
        for _ in range(runs):
            theirs.append(seconds(empty, "list"))
            ours.append(seconds(ROOT, *build))
    return [
        Finding("doit list, empty", median(theirs), "s"),
        Finding(f"doit build, {len(stored)} images", median(ours), "s"),
        Finding("ratio", median(ours) / median(theirs), "times", MOST_NOCHANGE),
    ]


# Every section by its name; --check holds all of its findings to their targets.
SECTIONS: Mapping[str, Section] = {"plan": plan, "nochange": nochange}


def made_up(root: Path, images: int, files: int) -> Path:
    """Make a checkout of this program with so many images and files in their contexts."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fcbuild", root / "fcbuild", ignore=ignore)
    shutil.copytree(ROOT / "kernels", root / "kernels")
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for number in range(images):
        directory = root / "images" / f"image-{number}"
        directory.mkdir(parents=True)
        (directory / "image.toml").write_text('description = "made up"\n')
        (directory / "Dockerfile").write_text('FROM scratch\nCOPY . /\nCMD ["/x"]\n')
        for file in range(files // images):
            path = directory / f"part-{file % 10}" / f"file-{file}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number} {file}\n" * 100)
    # Files that were written just now are not trusted to be what they were.
    threading.Event().wait(0.2)
    return root


def seconds(directory: Path, *args: str) -> float:
    """Run doit in a directory; return the seconds it took. Raises FcBuildError when it fails."""
    env = {
        **os.environ,
        "FCBUILD_STORE": os.environ.get("FCBUILD_STORE", str(ROOT / "artifacts/store")),
    }
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "doit", *args],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise FcBuildError(f"doit {' '.join(args)} failed:\n{done.stdout}{done.stderr}")
    return took


def show(section: str, found: list[Finding]) -> None:
    print(section)
    for finding in found:
        target = "" if finding.most is None else f"  (at most {finding.most})"
        missed = "" if finding.good else "  MISSED"
        print(f"  {finding.name:<28} {finding.value:8.3f} {finding.unit}{target}{missed}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.pipeline")
    parser.add_argument("section", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=5, help="of each thing that is measured")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    options = parser.parse_args()
    if unknown := set(options.section) - SECTIONS.keys():
        parser.error(f"no section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    found: dict[str, list[Finding]] = {}
    try:
        for section in options.section or SECTIONS:
            found[section] = SECTIONS[section](max(options.runs, 1))
            if not options.json:
                show(section, found[section])
    except FcBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(
            json.dumps({name: list(map(asdict, lines)) for name, lines in found.items()}, indent=1)
        )
    missed = [finding for lines in found.values() for finding in lines if not finding.good]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
