"""What make made of a kernel, kept beside the store: a changed fragment then compiles only what the
options that changed touch, as kbuild finds out from the options that each file has read.

    <cache>/objects/<key>/          one kernel's tree, for one build at a time
    <cache>/objects/<key>/fcbuild   there while the tree is as make left it

A make that was killed may leave half a file that looks made, so a tree without its mark is thrown
away. Nothing here is an artifact: all of it can be removed at any time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fcbuild.store import locks

KEPT_TREES = 8  # of 100 to 500 MB each
_MARK = "fcbuild"


class ObjectTree(NamedTuple):
    """path: the directory that make works in."""

    path: Path

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Run make within this: the tree is of no use any more when that fails."""
        (self.path / _MARK).unlink(missing_ok=True)
        yield
        (self.path / _MARK).touch()


@contextlib.contextmanager
def objects(cache: Path, key: Sequence[str], otherwise: Path) -> Iterator[ObjectTree]:
    """Have the tree of the last build with this key, or an empty one, for oneself.

    key: what a tree is good for; whatever else changes, kbuild sees. otherwise: an empty directory
    to work in where another build has the tree.
    """
    place = cache / "objects" / sha256("\n".join(key).encode()).hexdigest()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = locks.claim(place)
    if held is None:
        yield ObjectTree(otherwise)
        return
    try:
        if not (place / _MARK).exists():
            _clear(place)
        os.utime(place)
        yield ObjectTree(place)
    finally:
        os.close(held)
        _evict(place.parent)


def _clear(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _evict(trees: Path) -> None:
    """Remove the trees that were not used for longest, but none that is in use."""
    found = sorted(trees.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEPT_TREES]:
        if (mine := locks.claim(path)) is not None:
            (path / _MARK).unlink(missing_ok=True)  # first: never half a tree that looks whole
            shutil.rmtree(path, ignore_errors=True)
            os.close(mine)
