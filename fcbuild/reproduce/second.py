"""The second build: in another place, with another environment, from an empty store.

It runs in a process of its own, `python -m fcbuild.reproduce.second`, because what differs there
(umask, time zone, host name, directories) is a process's. Its package and its checkout are copies.

What differs: the directories of the checkout, of the store, of temporary files, and HOME; umask,
TZ, locale, number of jobs; where we are root the user and the host's name; every step of a
Dockerfile is run anew. Both builds' containers have random names and host names, and what compiles
kernels and PID 1 is 400 days ahead. What does not differ: the engine, the machine; sources, which
are held to their sha256; and, but for the time between the builds, the clock of what has a network,
steps of a Dockerfile above all: certificates and an archive's indexes are for today.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FrameType
from typing import IO, cast

from fcbuild import context, progress, spec
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import BuildError, CommandFailed, FcBuildError
from fcbuild.plan import PACKAGE, Plan
from fcbuild.reproduce.clock import ahead
from fcbuild.reproduce.stranger import NAME, Stranger, stranger
from fcbuild.run import run
from fcbuild.store import Store

TIMEOUT_S = 4 * 3600.0

_FOR_ALL = "/var/tmp"  # https://refspecs.linuxfoundation.org/FHS_3.0/fhs/ch05s15.html
_LOCALE = "tr_TR.UTF-8"  # the one whose i and I are not what programs think
_ZONES = ("<+1245>-12:45", "<-0330>3:30")  # no whole hours; in tzset(3)'s form, which all know


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the other process is to build, and how. root, store: directories; mark: of its images
    in the engine; umask: of the process; jobs: that a compiler's make runs at a time."""

    root: str
    store: str
    mark: str
    umask: int
    jobs: int
    strict: bool
    images: Sequence[str] = ()
    kernels: Sequence[str] = ()


class _Said:
    """A log that is said aloud: the other process's progress is ours."""

    def write(self, line: bytes) -> int:
        progress.say(line.decode("utf-8", "replace").rstrip("\n"))
        return len(line)


@dataclass(frozen=True)
class Second:
    """A place for second builds. store: what they make is there. user: whose all of it is, where
    that is not us."""

    root: Path
    plan: Plan
    store: Store
    scratch: Path
    strict: bool
    user: Stranger | None = None

    def build(self, *, images: Sequence[str] = (), kernels: Sequence[str] = ()) -> None:
        """Build root filesystems, or bases, and kernels with all they stand upon. Raises BuildError
        when that fails: the other process has said why."""
        order = Order(
            root=str(self.root),
            store=str(self.store.root),
            mark=self.plan.mark,
            umask=0o077 if _umask() != 0o077 else 0o022,
            jobs=(os.cpu_count() or 1) + 1,
            strict=self.strict,
            images=tuple(images),
            kernels=tuple(kernels),
        )
        argv = [sys.executable, "-m", __name__, json.dumps(asdict(order))]
        try:
            run(
                [*(self.user.argv if self.user else ()), *argv],
                what="the second build",
                env=environment(self.root, self.scratch),
                log=cast(IO[bytes], _Said()),
                timeout_s=TIMEOUT_S,
            )
        except CommandFailed as error:
            raise BuildError(
                f"the second build failed with status {error.status}: see above",
                hint="nothing was compared; the first build is in the store as ever",
            ) from error


@contextmanager
def elsewhere(
    root: Path, plan: Plan, store: Store, images: Sequence[str], *, at: Path, strict: bool
) -> Iterator[Second]:
    """Yield a place for second builds of these images of a checkout, in a new directory in `at`;
    it and all that the engine holds of it are gone afterwards."""
    with (
        TemporaryDirectory(prefix="reproduce-", dir=at) as own,
        # Not in `at`: who bootstraps in a user namespace has to get there.
        TemporaryDirectory(prefix="reproduce-", dir=_reachable()) as scratch,
    ):
        copy = Path(own, "checkout")
        wanted = list(_with_parents(plan, images))
        _copy(root, copy, plan, wanted)
        Path(scratch).chmod(0o755)
        there = Store(Path(own, "store"))
        there.root.mkdir(mode=0o700)
        # Each is held to the sha256 of its pin when it is used.
        (there.root / "downloads").mkdir(mode=0o700)
        for kept in (store.root / "downloads").glob("*"):
            # What others fetch meanwhile is in directories; what gc takes is fetched again.
            if kept.is_file():
                with suppress(FileNotFoundError):
                    shutil.copy(kept, there.root / "downloads")
        _home(Path(scratch)).mkdir()
        user = stranger(Path(scratch, "etc"))
        if user:
            user.give(Path(own))
            user.give(Path(scratch))
        second = Plan(spec.load(copy), mark=f"-{Path(own).name}".lower())
        try:
            yield Second(copy, second, there, Path(scratch), strict, user)
        finally:
            engine = Docker()
            for recipe in [*map(second.container, reversed(wanted)), second.toolchain]:
                with suppress(FcBuildError):  # an engine that is gone holds nothing for us
                    engine.remove(recipe.tag)


def environment(root: Path, scratch: Path) -> dict[str, str]:
    """Return the variables that differ in the other process."""
    config = os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser()
    return {
        "PYTHONPATH": str(root),
        "PYTHONSAFEPATH": "1",  # not the package in the working directory
        "DOCKER_CONFIG": str(config),  # the engine and the registries stay the user's
        "HOME": str(_home(scratch)),
        "TMPDIR": str(scratch),
        "TZ": next(zone for zone in _ZONES if zone != os.environ.get("TZ")),
        "LC_ALL": _LOCALE,
        "LANG": _LOCALE,
        "USER": NAME,
        "LOGNAME": NAME,
    }


def _reachable() -> str:
    """Return a directory for temporary files that every user can get to."""
    ours = Path(gettempdir()).resolve()
    ways = [ours, *ours.parents]
    return str(ours) if all(way.stat().st_mode & 0o001 for way in ways) else _FOR_ALL


def _home(scratch: Path) -> Path:
    return scratch / "home"


def main(argv: Sequence[str]) -> int:
    """Build what an order says; return the exit status."""
    order = Order(**json.loads(argv[0]))
    signal.signal(signal.SIGTERM, _interrupt)
    os.umask(order.umask)
    os.chdir(order.root)
    try:
        plan = Plan(spec.load(Path(order.root)), mark=order.mark)
        store = Store(Path(order.store))
        tag = Pipeline(plan, store, Docker(anew=True), strict=order.strict).toolchain()
        with TemporaryDirectory() as scratch:
            engine = Docker(anew=True, preload=ahead(tag, Path(scratch, "clock")))
            pipeline = Pipeline(plan, store, engine, strict=order.strict, jobs=order.jobs)
            _build(order, pipeline)
    except FcBuildError as error:
        progress.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _build(order: Order, pipeline: Pipeline) -> None:
    for name in order.images:
        if name in pipeline.plan.bootable():
            pipeline.rootfs(name)
        else:
            pipeline.container(name)
    for name in order.kernels:
        pipeline.kernel(name)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _with_parents(plan: Plan, images: Sequence[str]) -> dict[str, None]:
    """Return images with those that they are built upon, these first."""
    found: dict[str, None] = {}
    for name in images:
        found |= _with_parents(plan, plan.upon(name))
        found[name] = None
    return found


def _copy(root: Path, to: Path, plan: Plan, images: Sequence[str]) -> None:
    """Copy what these images and all kernels are made from, and our own package."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, to / "fcbuild", symlinks=True, ignore=ignored)
    shutil.copytree(spec.kernels_of(root), to / "kernels", symlinks=True)
    (to / "images").mkdir()
    with suppress(FileNotFoundError):
        shutil.copy(root / "images" / "lock.toml", to / "images")
    for name in images:
        directory, copy = plan.specs.images[name].directory, to / "images" / name
        copy.mkdir()
        ours = [directory / name for name in ("image.toml", "Dockerfile", *context.IGNORE_FILES)]
        # What the engine does not get may be anything, and of any size.
        for path in [*filter(Path.exists, ours), *(Path(e[1]) for e in context.entries(directory))]:
            target = copy / path.relative_to(directory)
            if path.is_dir() and not path.is_symlink():
                target.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
