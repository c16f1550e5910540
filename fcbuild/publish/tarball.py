"""Tars as streams: bytes that follow from their entries, and are never all in memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fcbuild.context import EPOCH
from fcbuild.publish.bundle import File

_PIECE = 1 << 20


class Entry(NamedTuple):
    """A file, or a directory, whose name ends with "/". owner: user and group."""

    name: str
    data: Iterable[bytes] = ()
    size: int = 0
    mode: int = 0o644
    owner: int = 0


def stream(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield a tar in the POSIX format, all of it as old as every build. Raises OSError for data
    that is not as long as was said."""
    for entry in entries:
        yield _header(entry)
        left = entry.size
        for piece in entry.data:
            left -= len(piece)
            yield piece
        if left:
            raise OSError(0, f"{entry.name} changed while it was being read")
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def text(name: str, data: bytes) -> Entry:
    """Return the entry of a small file."""
    return Entry(name, (data,), len(data))


def directory(name: str) -> Entry:
    """Return the entry of a directory."""
    return Entry(f"{name}/", mode=0o755)


def file(name: str, source: File) -> Entry:
    """Return the entry of a file of a bundle."""
    return Entry(name, _pieces(source), source.size, source.mode)


def _header(entry: Entry) -> bytes:
    info = tarfile.TarInfo(entry.name)
    info.type = tarfile.DIRTYPE if entry.name.endswith("/") else tarfile.REGTYPE
    info.size, info.mode, info.mtime = entry.size, entry.mode, EPOCH
    info.uid = info.gid = entry.owner
    return info.tobuf(tarfile.PAX_FORMAT)


def _pieces(source: File) -> Iterator[bytes]:
    if isinstance(source.source, bytes):
        yield source.source
        return
    with source.source.open("rb") as reading:
        while piece := reading.read(_PIECE):
            yield piece
