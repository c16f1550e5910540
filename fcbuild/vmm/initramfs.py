"""Write an initramfs: a newc cpio archive (the kernel's Documentation, early-userspace/
buffer-format), byte for byte the same for the same entries.

File contents are streamed from where they are; nothing is held in memory.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fcbuild.errors import VmmError

_MAX_FILE = 0xFFFFFFFF  # newc has eight hex digits for a size
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Directory:
    path: PurePosixPath
    mode: int = 0o755


@dataclass(frozen=True)
class RegularFile:
    """A file with the bytes, or with the content that the path has while we write."""

    path: PurePosixPath
    content: bytes | Path
    mode: int = 0o644


@dataclass(frozen=True)
class Symlink:
    path: PurePosixPath
    target: str


@dataclass(frozen=True)
class CharDevice:
    path: PurePosixPath
    major: int
    minor: int
    mode: int = 0o600


Entry = Directory | RegularFile | Symlink | CharDevice


def write(out: BinaryIO, entries: Iterable[Entry]) -> int:
    """Write the archive with the entries in their order and return its size in bytes.

    Missing parent directories are added, 0755; all is owned by 0:0 and dated 0. A directory may
    come again: the first one holds. Raises VmmError for any other path that is there twice, or is
    not absolute and plain.
    """
    size = 0
    for ino, entry in enumerate(_with_parents(entries), start=1):
        size += _write_entry(out, ino, entry)
    trailer = _header("TRAILER!!!", nlink=1)
    out.write(trailer)
    return size + len(trailer)


def _with_parents(entries: Iterable[Entry]) -> Iterator[Entry]:
    seen: dict[PurePosixPath, Entry] = {}
    for entry in entries:
        path = entry.path
        if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
            raise VmmError(f"not a path for an initramfs: {path}")
        for parent in reversed(path.parents[:-1]):
            there = seen.get(parent)
            if there is None:
                there = seen[parent] = Directory(parent)
                yield there
            elif not isinstance(there, Directory):
                raise VmmError(f"{path} cannot be below {parent}, which is not a directory")
        if isinstance(entry, Directory) and isinstance(seen.get(path), Directory):
            continue
        if path in seen:
            raise VmmError(f"{path} is twice in one initramfs")
        seen[path] = entry
        yield entry


def _write_entry(out: BinaryIO, ino: int, entry: Entry) -> int:
    name = str(entry.path).removeprefix("/")
    if isinstance(entry, Directory):
        return out.write(_header(name, ino=ino, mode=stat.S_IFDIR | entry.mode, nlink=2))
    if isinstance(entry, CharDevice):
        mode = stat.S_IFCHR | entry.mode
        device = (entry.major, entry.minor)
        return out.write(_header(name, ino=ino, mode=mode, nlink=1, device=device))
    if isinstance(entry, Symlink):
        return _write_bytes(out, ino, name, stat.S_IFLNK | 0o777, os.fsencode(entry.target))
    mode = stat.S_IFREG | entry.mode
    if isinstance(entry.content, bytes):
        return _write_bytes(out, ino, name, mode, entry.content)
    return _write_file(out, ino, name, mode, entry.content)


def _write_bytes(out: BinaryIO, ino: int, name: str, mode: int, content: bytes) -> int:
    header = _header(name, ino=ino, mode=mode, nlink=1, size=len(content))
    return out.write(header + content + _padding(len(content)))


def _write_file(out: BinaryIO, ino: int, name: str, mode: int, source: Path) -> int:
    with source.open("rb") as content:
        size = os.fstat(content.fileno()).st_size
        written = out.write(_header(name, ino=ino, mode=mode, nlink=1, size=size))
        before = out.tell()
        shutil.copyfileobj(content, out, _COPY_BYTES)
        if out.tell() - before != size:
            raise VmmError(f"{source} changed while it was read")
    return written + size + out.write(_padding(size))


def _header(
    name: str,
    *,
    ino: int = 0,
    mode: int = 0,
    nlink: int,
    size: int = 0,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Return the header with the name, padded to 4 bytes."""
    if size > _MAX_FILE:
        raise VmmError(f"{name} is too large for an initramfs: {size} bytes")
    encoded = os.fsencode(name) + b"\0"
    uid = gid = mtime = check = 0
    fields = (ino, mode, uid, gid, nlink, mtime, size, 0, 0, *device, len(encoded), check)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return header + _padding(len(header))


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 4)
