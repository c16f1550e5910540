"""What an ext4 file system says about itself: superblock, descriptors of its groups, bitmaps.

Source: Documentation/filesystems/ext4, super.rst, group_descr.rst, bitmaps.rst and journal.rst.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fcbuild.ext4.form import (
    BLOCK,
    COMPATIBLE,
    DESCRIPTOR,
    EXTRA,
    FIRST_INODE,
    GROUP,
    INCOMPATIBLE,
    INODE,
    JOURNAL,
    JOURNAL_INODE,
    READ_ONLY_COMPATIBLE,
    checksum,
    word,
)

# The descriptors stand behind the superblock, before there is any file. So many blocks are left for
# them; what of these is not needed in the end is free. They describe 512 GiB.
RESERVED = 64
MAX_GROUPS = RESERVED * BLOCK // DESCRIPTOR

_INODES_IN_BLOCK = BLOCK // INODE
_ZEROED = 0x4  # bg_flags: the inode table holds nothing but inodes
_JOURNAL_MAGIC, _JOURNAL_SUPERBLOCK = 0xC03B3998, 4


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells one file system from another: its UUID, and the seed of directories' hashes."""

    number: uuid.UUID
    hashing: uuid.UUID

    @property
    def seed(self) -> int:
        """What all checksums begin with."""
        return checksum(0xFFFFFFFF, self.number.bytes)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a file system is divided. size: in blocks; inodes: in each group."""

    size: int
    inodes: int

    @property
    def groups(self) -> int:
        return -(-self.size // GROUP)

    @property
    def descriptors(self) -> int:
        """Blocks that the descriptors of the groups take."""
        return -(-self.groups * DESCRIPTOR // BLOCK)

    @property
    def table(self) -> int:
        """Blocks of one group's inodes."""
        return self.inodes // _INODES_IN_BLOCK


def divide(size: int, inodes: int) -> Geometry:
    """Return the geometry of `size` blocks with at least so many inodes.

    A last group that could hold little more than a copy of the superblock is left out.
    """
    if 0 < size % GROUP <= 1 + RESERVED < size:
        size -= size % GROUP
    groups = -(-size // GROUP)
    each = -(-inodes // groups)
    return Geometry(size=size, inodes=each + -each % _INODES_IN_BLOCK)


def has_copy(group: int) -> bool:
    """Return whether a group begins with a superblock and descriptors: the first, and those of the
    powers of 3, 5 and 7 (sparse_super)."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


def copies(groups: int) -> Iterator[int]:
    return filter(has_copy, range(groups))


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a group's descriptor says. Blocks of the disk, and what is in use."""

    block_bitmap: int
    inode_bitmap: int
    table: int
    blocks: bytes
    inodes: bytes
    free_blocks: int
    free_inodes: int
    directories: int
    unused_inodes: int  # behind the last one that is in use


def bitmap(used: Iterable[tuple[int, int]], size: int) -> bytearray:
    """Return a bit for each of `size` things, in whole blocks; used: first and how many. What is
    beyond the size is in use."""
    bits = bytearray(-(-size // GROUP) * BLOCK)
    for first, count in [*used, (size, len(bits) * 8 - size)]:
        end = first + count
        while first < end and first % 8:
            bits[first // 8] |= 1 << first % 8
            first += 1
        whole = (end - first) // 8
        bits[first // 8 : first // 8 + whole] = b"\xff" * whole
        for number in range(first + whole * 8, end):
            bits[number // 8] |= 1 << number % 8
    return bits


def free(bits: bytes | bytearray) -> int:
    """Return how many of the bits are not set."""
    return len(bits) * 8 - int.from_bytes(bits, "little").bit_count()


def descriptor(number: int, group: Group, geometry: Geometry, seed: int) -> bytes:
    """Return the descriptor of a group."""
    blocks = checksum(seed, group.blocks)
    inodes = checksum(seed, group.inodes[: geometry.inodes // 8])
    places = (group.block_bitmap, group.inode_bitmap, group.table)
    counts = (group.free_blocks, group.free_inodes, group.directories)
    raw = bytearray(DESCRIPTOR)
    struct.pack_into(
        "<IIIHHHHIHHHHIIIHHHHIHHI",
        raw,
        0,
        *(place & 0xFFFFFFFF for place in places),
        *(count & 0xFFFF for count in counts),
        *(_ZEROED, 0, blocks & 0xFFFF, inodes & 0xFFFF),
        *(group.unused_inodes & 0xFFFF, 0),
        *(place >> 32 for place in places),
        *(count >> 16 for count in counts),
        *(group.unused_inodes >> 16, 0, blocks >> 16, inodes >> 16, 0),
    )
    struct.pack_into("<H", raw, 0x1E, checksum(seed, word(number), bytes(raw)) & 0xFFFF)
    return bytes(raw)


def superblock(
    identity: Identity,
    geometry: Geometry,
    *,
    group: int,
    free_blocks: int,
    free_inodes: int,
    time: int,
    journal: tuple[bytes, int],
) -> bytes:
    """Return the 1024 bytes of a superblock. group: in which it stands; time: of making, seconds
    since 1970; journal: the map of its inode, and its size."""
    raw = bytearray(1024)
    inodes = geometry.inodes * geometry.groups
    low, high = geometry.size & 0xFFFFFFFF, geometry.size >> 32
    struct.pack_into(
        "<IIIIIIIIIIIIIHHHHHHIIIIHHIHHIII16s",
        raw,
        0,
        *(inodes, low, 0, free_blocks & 0xFFFFFFFF, free_inodes, 0),
        *(2, 2, GROUP, GROUP, geometry.inodes),  # log2 of a block's and of a cluster's KiB
        *(0, time & 0xFFFFFFFF, 0, 0xFFFF, 0xEF53),  # never mounted, to be checked after no count
        *(1, 1, 0),  # clean; go on after an error
        *(time & 0xFFFFFFFF, 0, 0, 1),  # checked; no interval; Linux; revision
        *(0, 0, FIRST_INODE, INODE, group),
        sum(COMPATIBLE.values()),
        sum(INCOMPATIBLE.values()),
        sum(READ_ONLY_COMPATIBLE.values()),
        identity.number.bytes,
    )
    struct.pack_into("<I", raw, 0xE0, JOURNAL_INODE)
    raw[0xEC:0xFC] = identity.hashing.bytes
    # Half MD4 for directories' hashes; the journal's place stands here too; descriptors' size.
    struct.pack_into("<BBH", raw, 0xFC, 1, 1, DESCRIPTOR)
    struct.pack_into("<II", raw, 0x100, 0x4 | 0x8, 0)  # mount options: user_xattr, acl
    struct.pack_into("<I", raw, 0x108, time & 0xFFFFFFFF)
    struct.pack_into("<60sII", raw, 0x10C, journal[0], journal[1] >> 32, journal[1] & 0xFFFFFFFF)
    struct.pack_into("<III", raw, 0x150, high, 0, free_blocks >> 32)
    struct.pack_into("<HHI", raw, 0x15C, EXTRA, EXTRA, 0x1)  # hashes of signed characters
    struct.pack_into("<BB", raw, 0x174, 4, 1)  # 16 groups belong together; CRC-32C
    for offset in (0x274, 0x276, 0x277):  # the upper bits of the three times above
        raw[offset] = time >> 32 & 0xFF
    struct.pack_into("<I", raw, 0x3FC, checksum(0xFFFFFFFF, bytes(raw[:0x3FC])))
    return bytes(raw)


def journal(identity: Identity) -> bytes:
    """Return the first block of an empty journal; the others are zeros. Big-endian, as it is."""
    head = struct.pack(">III", _JOURNAL_MAGIC, _JOURNAL_SUPERBLOCK, 0)
    body = struct.pack(">IIIIII", BLOCK, JOURNAL // BLOCK, 1, 1, 0, 0)
    features = bytes(12)
    return (head + body + features + identity.number.bytes + struct.pack(">I", 1)).ljust(
        BLOCK, b"\0"
    )
