"""What make made of a kernel, kept beside the store: a changed fragment then compiles only what the
options that changed touch, as kbuild finds out from the options that each file has read. A kernel
without a tree begins with a copy of another's of the same source: half of what a profile compiles
is the same as in the next.

    <cache>/objects/<key>/           one kernel's tree, for one build at a time
    <cache>/objects/<key>/fragments  what was asked for
    <cache>/objects/<key>/fcbuild    there while the tree is as make left it; holds what the tree is
                                     good for

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
ASKED = "fragments"
_MARK = "fcbuild"


class ObjectTree(NamedTuple):
    """path: the directory that make works in. use: what its files are good for, as a digest."""

    path: Path
    use: str

    def whole(self) -> bool:
        """Return whether the last make in it ended well."""
        return (self.path / _MARK).exists()

    def clear(self) -> None:
        """Remove all that is in it."""
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Run make within this: the tree is of no use any more when that fails."""
        (self.path / _MARK).unlink(missing_ok=True)
        yield
        (self.path / _MARK).write_text(self.use)


@contextlib.contextmanager
def objects(
    cache: Path, key: Sequence[str], name: str, asked: str, otherwise: Path
) -> Iterator[ObjectTree]:
    """Have the tree of a kernel's last build for oneself, or one like it, or an empty one.

    key: what compiled files are good for; whatever else changes, kbuild sees. name: the kernel's.
    asked: the lines that its config is made of, which the tree then has. otherwise: an empty
    directory to work in where another build has the tree.
    """
    use = _digest(key)
    place = cache / "objects" / _digest([*key, name])
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = locks.claim(place)
    tree = ObjectTree(place if held is not None else otherwise, use)
    try:
        if not tree.whole():
            tree.clear()
            _begin(tree, place.parent, asked)
        (tree.path / ASKED).write_text(asked, encoding="utf-8")
        os.utime(tree.path)
        yield tree
    finally:
        if held is not None:
            os.close(held)
            _evict(place.parent)


def _begin(tree: ObjectTree, trees: Path, asked: str) -> None:
    """Copy what another kernel's build made: the one that was asked for what is most alike, of
    those that nobody is changing."""
    unmarked = shutil.ignore_patterns(_MARK)
    for path in _alike(trees, tree.use, set(asked.splitlines())):
        if (held := locks.claim(path)) is None:
            continue
        try:
            if (path / _MARK).exists():  # still
                shutil.copytree(path, tree.path, symlinks=True, ignore=unmarked, dirs_exist_ok=True)
                return
        except OSError:  # it only saves time; where the disk is full, the build will say so
            tree.clear()
        finally:
            os.close(held)


def _alike(trees: Path, use: str, lines: set[str]) -> list[Path]:
    """Return the whole trees of this use, the one whose lines differ least first."""
    found = []
    for path in trees.iterdir():
        try:
            if (path / _MARK).read_text(encoding="utf-8") == use:
                others = set((path / ASKED).read_text(encoding="utf-8").splitlines())
                found.append((len(lines ^ others), path))
        except OSError:  # not whole, or gone a moment ago
            continue
    return [path for _, path in sorted(found)]


def _digest(parts: Sequence[str]) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()


def _evict(trees: Path) -> None:
    """Remove the trees that were not used for longest, but none that is in use."""
    found = sorted(trees.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEPT_TREES]:
        if (mine := locks.claim(path)) is not None:
            (path / _MARK).unlink(missing_ok=True)  # first: never half a tree that looks whole
            shutil.rmtree(path, ignore_errors=True)
            os.close(mine)
