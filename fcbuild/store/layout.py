"""The directory that a store is in: whether it is one, can be one, and can be read by us."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fcbuild.errors import StoreError
from fcbuild.store import locks

LAYOUT = "1"
_PARTS = ("objects", "stage", "locks", "logs", "uses", "roots")
# What may be in the directory before it is a store.
_HARMLESS = {*_PARTS, "downloads", "lost+found"}
_NO_ROOM = 1 << 20  # bytes
_ELSEWHERE = "set FCBUILD_STORE to a directory of yours"


def place(value: str) -> Path:
    """Return the directory that FCBUILD_STORE names. Raises StoreError."""
    # The engine and Firecracker are told paths below it, in JSON.
    if not value.isprintable():
        raise StoreError(
            f"FCBUILD_STORE={value!r} is not a path that the engine can be told", hint=_ELSEWHERE
        )
    path = Path(value).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise StoreError(f"FCBUILD_STORE={value} is not a directory", hint=_ELSEWHERE)
    return path


def check(root: Path) -> bool:
    """Return whether there is a store. Raises StoreError for one that is not of this layout."""
    try:
        layout = (root / "schema").read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise StoreError(f"{root}/schema cannot be read: {error}", hint=_ELSEWHERE) from error
    if layout != LAYOUT:
        raise StoreError(
            f"the store {root} has layout {layout[:20]}, this fcbuild writes layout {LAYOUT}",
            hint="set FCBUILD_STORE to another directory, or remove this one",
        )
    return True


def prepare(root: Path) -> None:
    """Make the directory a store, unless it is one. Raises OSError, StoreError.

    What the store stands on is tried, once: locks that keep two holders apart, a rename of a
    directory that takes no other's place, directories that can be synced.
    """
    known = check(root)
    if not known and root.is_dir() and not (root / "objects").exists():
        strange = sorted({path.name for path in root.iterdir()} - _HARMLESS)
        strange = [name for name in strange if not name.startswith(".schema.")]
        if strange:
            raise StoreError(
                f"{root} is neither empty nor a store: it holds {', '.join(strange[:3])}",
                hint="set FCBUILD_STORE to a new directory, or an empty one",
            )
    for part in _PARTS:
        (root / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    if known:
        return
    with tempfile.TemporaryDirectory(prefix="probe-", dir=root / "stage") as scratch:
        _probe(root, Path(scratch))
    write(root / "schema", f"{LAYOUT}\n".encode())


def is_full(root: Path) -> bool:
    """Return whether the disk below has room for no more bytes or files."""
    disk = os.statvfs(root)
    return disk.f_bavail * disk.f_frsize < _NO_ROOM or (disk.f_files > 0 and disk.f_favail == 0)


def sync(path: Path) -> None:
    """Have a file or a directory on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Write a small file in one step. Raises OSError."""
    own = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    own.write_bytes(content)
    own.replace(path)


@contextlib.contextmanager
def writable(directory: Path) -> Iterator[None]:
    """Let the entries of a directory, which may be an object's, be changed. Raises OSError."""
    mode = directory.stat().st_mode & 0o7777
    if mode & 0o200:
        yield
        return
    directory.chmod(mode | 0o200)
    try:
        yield
    finally:
        directory.chmod(mode)


def _probe(root: Path, scratch: Path) -> None:
    source, target = scratch / "a", scratch / "b"
    for directory in (source, target):
        directory.mkdir()
        (directory / "file").touch()

    def refused() -> bool:
        try:
            source.rename(target)
        except OSError as error:
            return error.errno in {errno.ENOTEMPTY, errno.EEXIST}
        return False

    def renamed() -> bool:
        source.rename(scratch / "c")
        return (scratch / "c" / "file").exists()

    def synced() -> bool:
        sync(scratch)
        return True

    wants: dict[str, Callable[[], bool]] = {
        "locks (flock)": lambda: locks.work(scratch),
        "a rename that takes no other directory's place": refused,
        "a rename of a directory": renamed,
        "fsync of a directory": synced,
    }
    for what, try_it in wants.items():
        try:
            why = "" if try_it() else "it has no effect"
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}:
                raise
            why = str(error.strerror)
        if why:
            raise StoreError(
                f"{root} cannot be a store: its file system lacks {what}: {why}",
                hint="set FCBUILD_STORE to a directory on a local disk (ext4, xfs, btrfs)",
            )
