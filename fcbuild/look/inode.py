"""ext4's inodes, as they are on the disk: what one says about its file, and where its bytes are.

Numbers are little-endian. Source of all layouts: the Linux kernel's Documentation/filesystems/ext4,
inodes.rst, attributes.rst and ifork.rst.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO

from fcbuild.errors import ImageError

SIZE = 256  # bytes of an inode in our file systems (build/ext4.py)
BLOCK = 4096

_EXTENTS = 0x80000  # i_flags: the block map is a tree of extents
_INLINE = 0x10000000  # i_flags: the content is in the inode

_XATTR_MAGIC = 0xEA020000
_XATTR_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
}
_ACLS = {_XATTR_PREFIXES[2], _XATTR_PREFIXES[3]}
_ACL_NAMED = {0x02, 0x08}  # ACL_USER, ACL_GROUP: these alone have an id on the disk
_NO_ID = 0xFFFFFFFF

_EXTENT_MAGIC = 0xF30A
_EXTENT_DEPTH = 5
_UNWRITTEN = 32768  # a length above it: allocated, never written, so it reads as zeros

PIECE = 1 << 20
_END = 1 << 32  # no block of a file has this number

Blocks = Callable[[int], bytes]  # the bytes of a block, by its number


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
        mapped = self.flags & _EXTENTS
        return None if mapped or self.size >= len(self.map) else self.map[: self.size]

    def extents(self, block: Blocks) -> Iterator[tuple[int, int, int]]:
        """Yield where the content is: its first block in the file, the first on the disk, how many.

        What is between them are holes. Raises ImageError for a tree that is none.
        """
        if self.flags & _INLINE or (self.size and not self.flags & _EXTENTS):
            raise ImageError("a file whose content is not in extents, which no build of ours makes")
        if self.size:
            yield from _extents(self.map, _EXTENT_DEPTH, block)

    def xattrs(self, block: Blocks) -> dict[str, bytes]:
        """Return the extended attributes, from the inode and from the block it names."""
        found: dict[str, bytes] = {}
        if self.tail[:4] == _XATTR_MAGIC.to_bytes(4, "little"):
            found |= _xattrs(self.tail[4:], 0)
        if self.attributes:
            data = block(self.attributes)
            if data[:4] != _XATTR_MAGIC.to_bytes(4, "little"):
                raise ImageError(f"block {self.attributes} holds no extended attributes")
            found |= _xattrs(data, 32)
        return found


def decode(raw: bytes) -> Inode:
    """Read an inode's bytes."""
    mode, uid, size, mtime, gid, links, flags, map_ = struct.unpack_from(
        "<HHI 8x i 4x HH 4x I 4x 60s", raw
    )
    attributes, size_high, attributes_high, uid_high, gid_high = struct.unpack_from(
        "<II 6x HHH", raw, 0x68
    )
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
        attributes=attributes_high << 32 | attributes,
        tail=raw[0x80 + extra :],
    )


def _extents(node: bytes, depth_left: int, block: Blocks) -> Iterator[tuple[int, int, int]]:
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


def _xattrs(data: bytes, at: int) -> dict[str, bytes]:
    """Read the attributes whose list begins at `at`; offsets of values count from data's start."""
    found: dict[str, bytes] = {}
    while data[at : at + 4] not in (b"", bytes(4)):
        if at + 16 > len(data):
            raise ImageError("a damaged list of extended attributes")
        length, index, offset, elsewhere, size = struct.unpack_from("<BBHII", data, at)
        name, value = data[at + 16 : at + 16 + length], data[offset : offset + size]
        if elsewhere or len(name) != length or len(value) != size or index not in _XATTR_PREFIXES:
            raise ImageError("a damaged extended attribute, or one in a form no build of ours has")
        full = _XATTR_PREFIXES[index] + name.decode("utf-8", "surrogateescape")
        found[full] = _acl(value) if full in _ACLS else value
        at += 16 + length + -length % 4
    return found


def _acl(stored: bytes) -> bytes:
    """Turn an access control list from ext4's form, version 1, into getxattr(2)'s, version 2."""
    if stored[:4] != b"\1\0\0\0":
        raise ImageError("an access control list in another form than ext4's")
    acl, at = b"\2\0\0\0", 4
    while at + 4 <= len(stored):
        tag, permissions = struct.unpack_from("<HH", stored, at)
        named = tag in _ACL_NAMED and at + 8 <= len(stored)
        identity = struct.unpack_from("<I", stored, at + 4)[0] if named else _NO_ID
        acl += struct.pack("<HHI", tag, permissions, identity)
        at += 8 if named else 4
    return acl


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
