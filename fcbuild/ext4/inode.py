"""ext4's inodes, as they are on the disk: what one says about its file, and where its bytes are.

Source: Documentation/filesystems/ext4, inodes.rst and ifork.rst.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO

from fcbuild.errors import ImageError
from fcbuild.ext4 import attributes
from fcbuild.ext4.form import BLOCK, EXTRA, INODE, checksum, word

EXTENTS = 0x80000  # i_flags: the block map is a tree of extents
_INLINE = 0x10000000  # i_flags: the content is in the inode

_EXTENT_MAGIC = 0xF30A
_EXTENT_DEPTH = 5
_INSIDE = 4  # extents that an inode has room for
_IN_BLOCK = (BLOCK - 16) // 12  # and a block, with its header and checksum
_UNWRITTEN = 32768  # a length above it: allocated, never written, so it reads as zeros
MAX_EXTENT = 32768  # blocks

PIECE = 1 << 20
_END = 1 << 32  # no block of a file has this number

Blocks = Callable[[int], bytes]  # the bytes of a block, by its number
Extent = tuple[int, int, int]  # its first block in the file, its first on the disk, how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """An inode. size: bytes, mtime: seconds since 1970, tail: where attributes are kept in it."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    map: bytes
    attributes: int
    tail: bytes

    @property
    def device(self) -> tuple[int, int] | None:
        """Major and minor number, for devices."""
        if not (stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)):
            return None
        old, new = struct.unpack_from("<II", self.map)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00

    @property
    def short_target(self) -> bytes | None:
        """The target of a symbolic link that is short enough to be in the inode."""
        mapped = self.flags & EXTENTS
        return None if mapped or self.size >= len(self.map) else self.map[: self.size]

    def extents(self, block: Blocks) -> Iterator[Extent]:
        """Yield where the content is: its first block in the file, the first on the disk, how many.

        What is between them are holes. Raises ImageError for a tree that is none.
        """
        if self.flags & _INLINE or (self.size and not self.flags & EXTENTS):
            raise ImageError("a file whose content is not in extents, which no build of ours makes")
        if self.size:
            yield from extents(self.map, block)

    def xattrs(self, block: Blocks) -> dict[str, bytes]:
        """Return the extended attributes, from the inode and from the block it names."""
        own = block(self.attributes) if self.attributes else None
        return attributes.decode(self.tail, own)


def decode(raw: bytes) -> Inode:
    """Read an inode's bytes."""
    mode, uid, size, mtime, gid, links, flags, map_ = struct.unpack_from(
        "<HHI 8x i 4x HH 4x I 4x 60s", raw
    )
    xattrs, size_high, xattrs_high, uid_high, gid_high = struct.unpack_from("<II 6x HHH", raw, 0x68)
    (extra,) = struct.unpack_from("<H", raw, 0x80)
    if extra >= 12:  # mtime has more bits there: two of them are seconds, the others nanoseconds
        mtime += (raw[0x88] & 3) << 32
    return Inode(
        mode=mode,
        uid=uid_high << 16 | uid,
        gid=gid_high << 16 | gid,
        size=size_high << 32 | size,
        mtime=mtime,
        links=links,
        flags=flags,
        map=map_,
        attributes=xattrs_high << 32 | xattrs,
        tail=raw[0x80 + extra :],
    )


def extents(map_: bytes, block: Blocks) -> Iterator[Extent]:
    """Yield the extents of a map. Raises ImageError."""
    yield from _extents(map_, _EXTENT_DEPTH, block)


def _extents(node: bytes, depth_left: int, block: Blocks) -> Iterator[Extent]:
    magic, count, _, depth = struct.unpack_from("<HHHH", node)
    if magic != _EXTENT_MAGIC or depth > depth_left or 12 + 12 * count > len(node):
        raise ImageError("a damaged tree of extents")
    for at in range(12, 12 + 12 * count, 12):
        if depth:
            low, high = struct.unpack_from("<4x IH", node, at)
            yield from _extents(block(high << 32 | low), depth - 1, block)
        else:
            first, length, high, low = struct.unpack_from("<IHHI", node, at)
            if length <= _UNWRITTEN:
                yield first, high << 32 | low, length


def encode(
    number: int,
    seed: int,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    links: int,
    held: int,
    flags: int,
    map_: bytes,
    attributes: int,
    tail: bytes,
) -> bytes:
    """Return the bytes of an inode. number: its own; seed: of the file system's checksums; held:
    blocks that it holds, its map's and attributes' included; all its times are `mtime`."""
    low, high = mtime & 0xFFFFFFFF, (mtime + (1 << 31)) >> 32 & 3  # the rest is nanoseconds
    sectors = held * (BLOCK // 512)
    raw = bytearray(INODE)
    struct.pack_into(
        "<HHIIIIIHHII4x60sIIIIHHHH",
        raw,
        0,
        mode,
        uid & 0xFFFF,
        size & 0xFFFFFFFF,
        *(low, low, low, 0),
        gid & 0xFFFF,
        links,
        sectors & 0xFFFFFFFF,
        flags,
        map_,
        *(0, attributes & 0xFFFFFFFF, size >> 32, 0),
        *(sectors >> 32, attributes >> 32, uid >> 16, gid >> 16),
    )
    struct.pack_into("<HHIIIII", raw, 0x80, EXTRA, 0, high, high, high, low, high)
    raw[128 + EXTRA : 128 + EXTRA + len(tail)] = tail
    value = checksum(checksum_seed(number, seed), bytes(raw))
    struct.pack_into("<H", raw, 0x7C, value & 0xFFFF)
    struct.pack_into("<H", raw, 0x82, value >> 16)
    return bytes(raw)


def checksum_seed(number: int, seed: int) -> int:
    """Return what the checksums of an inode, and of what belongs to it, begin with."""
    return checksum(seed, word(number), word(0))  # its number and generation


def device_map(major: int, minor: int) -> bytes:
    """Return what a device has in place of a map, in the old form where its numbers fit."""
    if major < 256 and minor < 256:
        return struct.pack("<II52x", major << 8 | minor, 0)
    return struct.pack("<II52x", 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def extent_map(
    extents: Sequence[Extent], place: Callable[[bytes], int], seed: int
) -> tuple[bytes, int]:
    """Return the map of a file, and how many blocks of the disk it takes itself.

    place: puts a block on the disk and returns its number; seed: of the inode's checksums.
    """
    entries = [
        struct.pack("<IHHI", first, count, at >> 32, at & 0xFFFFFFFF)
        for first, at, count in extents
    ]
    firsts = [first for first, _, _ in extents]
    depth = taken = 0
    while len(entries) > _INSIDE:
        nodes, starts = [], []
        for start in range(0, len(entries), _IN_BLOCK):
            part = entries[start : start + _IN_BLOCK]
            node = _node(part, _IN_BLOCK, depth).ljust(BLOCK - 4, b"\0")
            at = place(node + word(checksum(seed, node)))
            nodes.append(struct.pack("<IIHH", firsts[start], at & 0xFFFFFFFF, at >> 32, 0))
            starts.append(firsts[start])
        entries, firsts = nodes, starts
        depth += 1
        taken += len(nodes)
    return _node(entries, _INSIDE, depth).ljust(60, b"\0"), taken


def _node(entries: Sequence[bytes], room: int, depth: int) -> bytes:
    return struct.pack("<HHHHI", _EXTENT_MAGIC, len(entries), room, depth, 0) + b"".join(entries)


def content(inode: Inode, disk: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes from its disk, holes as zeros, in pieces of at most 1 MiB."""
    at, following = 0, 0  # in bytes, and in blocks
    for first, place, count in chain(inode.extents(partial(read_block, disk)), [(_END, 0, 1)]):
        # In order, or a tree that leads to itself would have no end.
        if first < following or count == 0:
            raise ImageError("a file whose extents are out of order")
        following = first + count
        start = min(first * BLOCK, inode.size)
        for offset in range(at, start, PIECE):
            yield bytes(min(PIECE, start - offset))
        at = min(following * BLOCK, inode.size)
        for offset in range(start, at, PIECE):
            yield read_at(disk, place * BLOCK + offset - start, min(PIECE, at - offset))


def read_block(disk: IO[bytes], number: int) -> bytes:
    """Return a block of a disk, by its number."""
    return read_at(disk, number * BLOCK, BLOCK)


def read_at(disk: IO[bytes], offset: int, size: int) -> bytes:
    """Return bytes of a disk. Raises ImageError for those beyond its end."""
    disk.seek(offset)
    data = disk.read(size)
    if len(data) != size:
        raise ImageError("something lies beyond the end of the disk")
    return data
