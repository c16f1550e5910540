"""Kernel sources, unpacked and patched: kept beside the store, for the next kernel of the series.

    <cache>/trees/<key>/   the source of one archive with certain patches; only ever read
    <cache>/ccache/        what the compilers made of it

Unpacking takes as long as compiling half a small kernel. Nothing here is an artifact: all of it can
be removed at any time, and the cache keeps to its size by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from fcbuild import progress
from fcbuild.store import locks

KEPT_TREES = 3  # of 1.7 GB each

Unpack = Callable[[Path], None]


@contextlib.contextmanager
def tree(cache: Path, key: Sequence[str], unpack: Unpack, *, what: str) -> Iterator[Path]:
    """Have a source tree, and hold it: nobody removes it meanwhile.

    key: what the tree follows from; `unpack` makes it in the empty directory that it is given.
    """
    trees = cache / "trees"
    trees.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = trees / sha256("\n".join(key).encode()).hexdigest()
    held = locks.share(place)
    if held is None:
        with locks.exclusive(trees / "lock", waiting=_waiting(what)):
            held = locks.share(place)  # another build may have made it meanwhile
            if held is None:
                _make(place, unpack)
                held = locks.share(place)
                _evict(trees)
    try:
        os.utime(place)
        yield place
    finally:
        if held is not None:
            os.close(held)


def _waiting(what: str) -> Callable[[], None]:
    return lambda: progress.say(f"{what}: waiting for another build that unpacks its source")


def _make(place: Path, unpack: Unpack) -> None:
    for left in place.parent.glob("new-*"):  # by a build that was killed: the lock is ours now
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=place.parent))
    try:
        unpack(fresh)
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _evict(trees: Path) -> None:
    """Remove the trees that were not used for longest, but none that is in use."""
    found = sorted(
        (path for path in trees.iterdir() if path.is_dir() and not path.name.startswith("new-")),
        key=lambda path: path.stat().st_mtime,
    )
    for path in found[:-KEPT_TREES]:
        if (mine := locks.claim(path)) is not None:
            gone = path.with_name(f"new-{path.name}")  # out of sight first: never half a tree
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            os.close(mine)
