"""Digests of files, remembered between runs: a file whose status is what it was is not read again.

The status is size, time of modification, time of change and inode. A file that changes twice within
one tick of the file system's clock can have the same status with other bytes, so what was changed
just before it was read is read again the next time, as git does for its index.

The document lies in artifacts/ and can be thrown away: one line that says what it is and the digest
of the rest, then JSON, path -> [size, mtime_ns, ctime_ns, inode, sha256]. It is replaced whole; of
two processes that write it the last one wins, and the other's files are read once more.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from pathlib import Path

from fcbuild.errors import InputChanged

FILE = "digests.json"

_HEADER = b"fcbuild-digests 1 "
_MAX_BYTES = 256 << 20
_BLOCK = 1 << 20

# Ticks: of clocks that count in fractions of a second (a kernel's is 10 ms at most), and of those
# that count whole seconds, two at a time on FAT.
_FINE_NS, _COARSE_NS = 100_000_000, 2_000_000_000

Status = tuple[int, int, int, int]


class Digests:
    """sha256 of files by path. Without a document nothing is remembered between runs."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, list[object]] | None = None
        self._used: dict[str, list[object]] = {}
        self._changed = False

    def of(self, path: str, status: os.stat_result) -> str:
        """Return the digest of a file. status: what lstat said. Raises InputChanged, OSError."""
        seen = _status(status)
        entry = self._used.get(path) or self._remembered().get(path)
        if isinstance(entry, list) and tuple(entry[:4]) == seen and isinstance(entry[4], str):
            self._used[path] = entry
            return entry[4]
        began = time.time_ns()
        sha256 = read(path, seen)
        if _settled(status, began):
            self._used[path] = [*seen, sha256]
            self._changed = True
        return sha256

    def save(self) -> None:
        """Write the document, if there is something new. One that cannot be written is no matter:
        files are read again."""
        if self._path is None or not self._changed:
            return
        # What this run had no need to look at stays, unless it is gone.
        kept = {path: e for path, e in self._remembered().items() if os.path.lexists(path)}
        body = json.dumps({**kept, **self._used}, separators=(",", ":")).encode("ascii")
        temporary = self._path.with_name(
            f".{self._path.name}.{os.getpid()}.{threading.get_ident()}"
        )
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_HEADER + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            temporary.replace(self._path)
            self._changed = False
        except OSError:
            temporary.unlink(missing_ok=True)

    def _remembered(self) -> dict[str, list[object]]:
        if self._known is None:
            self._known = _load(self._path) if self._path else {}
        return self._known


def read(path: str, seen: Status | None = None) -> str:
    """Return the digest of a file that has this status before and after it is read.

    Raises InputChanged, OSError. Memory does not grow with the file.
    """
    # Not through a link, nor waiting for a pipe's other end: either may be in the file's place.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or seen not in (None, _status(status)):
            raise InputChanged(path)
        hasher = hashlib.sha256()
        while block := os.read(descriptor, _BLOCK):
            hasher.update(block)
        if _status(os.fstat(descriptor)) != _status(status):
            raise InputChanged(path)
    finally:
        os.close(descriptor)
    return hasher.hexdigest()


def _status(status: os.stat_result) -> Status:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _settled(status: os.stat_result, now_ns: int) -> bool:
    """Return whether a change after `now_ns` would be seen in a file's times."""
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    tick = _FINE_NS if status.st_ctime_ns % 1_000_000_000 else _COARSE_NS
    return newest + tick < now_ns


def _load(path: Path) -> dict[str, list[object]]:
    """Read a document; one that is damaged, or another user's, is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return {}
            head = file.readline(200)
            body = file.read(_MAX_BYTES)
        if head != _HEADER + hashlib.sha256(body).hexdigest().encode() + b"\n":
            return {}
        known = json.loads(body)
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
