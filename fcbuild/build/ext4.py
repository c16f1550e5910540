"""ext4 images from a tar: no root, no mount, and the same bytes each time."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from fcbuild.build.engine import Engine
from fcbuild.plan import PACKAGE
from fcbuild.store import Stage
from fcbuild.tables import MIB

BLOCK = 4096
INODE = 256
TIMEOUT_S = 1800.0

# A journal of 1024 blocks is the smallest that ext4 takes; it is enough for a guest's small disk.
JOURNAL = 4 * MIB

# Group descriptors, bitmaps and superblock copies take about 0.1 % of a file system; extent blocks
# and directory indexes some more. Measured on images of 5 MiB to 2 GiB.
_OVERHEAD_PART = 64  # 1/64 of the content
_OVERHEAD_FIXED = 2 * MIB
_SPARE_INODES = 1024


@dataclass
class Content:
    """What goes into a file system, summed up. data in bytes, in whole blocks."""

    data: int = 0
    inodes: int = 0
    newest: int = 0  # the latest modification time, seconds since 1970

    def add(self, size: int, mtime: int) -> None:
        self.data += -(-size // BLOCK) * BLOCK
        self.inodes += 1
        self.newest = max(self.newest, mtime)


def size_for(content: Content, free: int) -> int:
    """Return the bytes of a file system that holds the content and leaves `free` bytes."""
    inodes = inode_count(content) * INODE
    overhead = content.data // _OVERHEAD_PART + _OVERHEAD_FIXED
    total = content.data + inodes + JOURNAL + overhead + free
    return -(-total // MIB) * MIB


def inode_count(content: Content) -> int:
    """Return how many inodes to make: a fifth more than the content has, and some to start with."""
    return content.inodes + content.inodes // 5 + _SPARE_INODES


def pack(
    name: str,
    tar: Path,
    *,
    size: int,
    content: Content,
    seed: str,
    engine: Engine,
    toolchain: str,
    stage: Stage,
) -> None:
    """Make stage/NAME from the tar in stage.scratch and check it with e2fsck.

    size: bytes. seed: what the UUIDs are derived from, so that they are the same each time.
    Raises CommandFailed: not enough room, or a file system that is not sound.
    """
    identity = uuid.UUID(bytes=hashlib.sha256(f"uuid {seed}".encode()).digest()[:16], version=4)
    hashing = uuid.UUID(bytes=hashlib.sha256(f"hash {seed}".encode()).digest()[:16], version=4)
    script = " && ".join(
        [
            'mke2fs -q -t ext4 -b "$BLOCK" -I "$INODE" -N "$INODES" -m 0 -J size="$JOURNAL"'
            ' -U "$IDENTITY" -E hash_seed="$HASHING",root_owner=0:0,nodiscard'
            ' -d "/in/$TAR" "/out/$NAME" "${KIB}k"',
            # -n writes nothing; status 0 is "no error found"
            'e2fsck -fn "/out/$NAME"',
        ]
    )
    engine.run(
        toolchain,
        ["sh", "-euc", script],
        what=f"packing {name} ({size // MIB} MiB)",
        mounts={
            stage.scratch: "/in:ro",
            stage.directory: "/out:rw",
            PACKAGE / "build" / "mke2fs.conf": "/mke2fs.conf:ro",
        },
        log=stage.log,
        log_path=stage.log_path,
        timeout_s=TIMEOUT_S,
        env={
            "NAME": name,
            "TAR": tar.name,
            "BLOCK": str(BLOCK),
            "INODE": str(INODE),
            "INODES": str(inode_count(content)),
            "JOURNAL": str(JOURNAL // MIB),
            "IDENTITY": str(identity),
            "HASHING": str(hashing),
            "KIB": str(size // 1024),
            "MKE2FS_CONFIG": "/mke2fs.conf",
            # File times newer than this would be cut to it, so it is the newest of them; the file
            # system's own times are set to it.
            "SOURCE_DATE_EPOCH": str(content.newest),
            "LC_ALL": "C.UTF-8",  # in the C locale libarchive fails on names that are not ASCII
        },
    )
