"""The form of our file systems: what mke2fs would ask for, and what all of them have in common.

Numbers are little-endian. Source of all layouts below ext4/: the Linux kernel's
Documentation/filesystems/ext4.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from fcbuild.fingerprint import Json
from fcbuild.tables import MIB

BLOCK = 4096
INODE = 256
EXTRA = 32  # bytes that an inode has besides the classic 128: the times' fractions, a checksum
GROUP = 8 * BLOCK  # blocks in a group: as many as a block has bits
DESCRIPTOR = 64  # bytes of a group's descriptor
JOURNAL = 4 * MIB  # 1024 blocks, the smallest that ext4 takes; enough for a guest's small disk

ROOT, JOURNAL_INODE, FIRST_INODE = 2, 8, 11  # special inodes, and the first that is none

# Features, by the words of the superblock. No resize inode (the size is known), no orphan file and
# no checksum seed (e2fsprogs before 1.47 refuse them).
COMPATIBLE = {"has_journal": 0x4, "ext_attr": 0x8, "dir_index": 0x20}
INCOMPATIBLE = {"filetype": 0x2, "extent": 0x40, "64bit": 0x80, "flex_bg": 0x200}
READ_ONLY_COMPATIBLE = {
    "sparse_super": 0x1,
    "large_file": 0x2,
    "huge_file": 0x8,
    "dir_nlink": 0x20,
    "extra_isize": 0x40,
    "metadata_csum": 0x400,
}

MAX_LINKS = 65000  # names of one inode: EXT4_LINK_MAX
MAX_NAME = 255  # bytes
MAX_TARGET = BLOCK - 1  # bytes of a symbolic link
OLDEST, NEWEST = -(1 << 31), (1 << 34) - (1 << 31) - 1  # seconds since 1970: 1901 to 2446

# All that shapes a file system's bytes besides its content: an input of its fingerprint.
PARAMETERS: Mapping[str, Json] = {
    "block": BLOCK,
    "inode": INODE,
    "journal": JOURNAL,
    "features": sorted([*COMPATIBLE, *INCOMPATIBLE, *READ_ONLY_COMPATIBLE]),
}


def blocks(size: int) -> int:
    """Return how many blocks hold so many bytes."""
    return -(-size // BLOCK)


def checksum(seed: int, *parts: bytes) -> int:
    """Return ext4's checksum of bytes: CRC-32C, as the kernel has it, without a last inversion."""
    import google_crc32c

    value: int = seed ^ 0xFFFFFFFF
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value ^ 0xFFFFFFFF


def word(number: int) -> bytes:
    """Return a number as 32 bits."""
    return struct.pack("<I", number)
