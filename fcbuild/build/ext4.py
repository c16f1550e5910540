"""ext4 images from a tar: no root, no mount, and the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcbuild.build import xattr
from fcbuild.build.engine import Engine
from fcbuild.build.xattr import Xattr
from fcbuild.plan import PACKAGE
from fcbuild.store import Stage
from fcbuild.tables import MIB

BLOCK = 4096
INODE = 256
FAST_LINK = 60  # bytes: a symbolic link's target that is shorter has its place in the inode
TIMEOUT_S = 1800.0

# A journal of 1024 blocks is the smallest that ext4 takes; it is enough for a guest's small disk.
JOURNAL = 4 * MIB

# Group descriptors, bitmaps and superblock copies take about 0.1 % of a file system; extent blocks
# and directory indexes some more. Measured on images of 5 MiB to 2 GiB.
_OVERHEAD_PART = 64  # 1/64 of the content
_OVERHEAD_FIXED = 2 * MIB
_SPARE_INODES = 1024


OVERLAY = "overlay.ext4"  # the drive that takes what the guest writes

# Runs in the toolchain image. -n writes nothing, and e2fsck's status 0 is "no error found".
_PACK = f"""
mke2fs -q -t ext4 -b "$BLOCK" -I "$INODE" -N "$INODES" -m 0 -J size="$JOURNAL" \\
    -U "$IDENTITY" -E hash_seed="$HASHING",root_owner=0:0,nodiscard -d "$TAR" "$IMAGE" "${{KIB}}k"
{xattr.COMMANDS}
e2fsck -fn "$IMAGE"
if test -n "$OVERLAY_KIB"; then
    mke2fs -q -t ext4 -b "$BLOCK" -I "$INODE" -m 0 -U "$OVERLAY_IDENTITY" \\
        -E hash_seed="$OVERLAY_HASHING",root_owner=0:0,nodiscard "$OVERLAY" "${{OVERLAY_KIB}}k"
    e2fsck -fn "$OVERLAY"
fi
"""


@dataclass
class Content:
    """What goes into a file system, summed up.

    data: bytes, in whole blocks. names: bytes of directory entries. newest: the latest
    modification time, seconds since 1970.
    """

    data: int = 0
    names: int = 0
    inodes: int = 0
    newest: int = 0

    def add(self, size: int, mtime: int) -> None:
        """Count an inode and the bytes that it holds."""
        self.hold(size)
        self.inodes += 1
        self.newest = max(self.newest, mtime)

    def hold(self, size: int) -> None:
        """Count bytes that an inode holds: all of them, or a part that begins with a block."""
        self.data += -(-size // BLOCK) * BLOCK

    def enter(self, path: str) -> None:
        """Count a name in its directory: 8 bytes and the name, in whole words."""
        self.names += 8 + (len(os.fsencode(path.rpartition("/")[2])) + 3) // 4 * 4


def size_for(content: Content, free: int) -> int:
    """Return the bytes of a file system that holds the content and leaves `free` bytes."""
    inodes = inode_count(content) * INODE
    # A name does not go over a block's end, so blocks of directories are not quite full.
    names = content.names * 5 // 4
    overhead = names + content.data // _OVERHEAD_PART + _OVERHEAD_FIXED
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
    xattrs: Sequence[Xattr],
    seed: str,
    overlay: int | None,
    engine: Engine,
    toolchain: str,
    stage: Stage,
) -> None:
    """Make stage/NAME from the tar in stage.scratch and check it with e2fsck.

    size: bytes. seed: what the UUIDs are derived from, so that they are the same each time.
    overlay: bytes of an empty file system stage/OVERLAY to make besides, None for none.
    Raises CommandFailed: not enough room, or a file system that is not sound. Raises BuildError for
    extended attributes that cannot be carried over.
    """
    volumes = {}
    if xattrs:
        xattr.prepare(xattrs, stage.scratch)
        volumes[stage.scratch / xattr.SCRATCH] = "/xattrs:rw"
    engine.run(
        toolchain,
        ["sh", "-euc", _PACK],
        what=f"packing {name} ({size // MIB} MiB)",
        mounts={
            stage.scratch: "/in:ro",
            stage.directory: "/out:rw",
            PACKAGE / "build" / "mke2fs.conf": "/mke2fs.conf:ro",
            **volumes,
        },
        log=stage.log,
        log_path=stage.log_path,
        timeout_s=TIMEOUT_S,
        env={
            "IMAGE": f"/out/{name}",
            "TAR": f"/in/{tar.name}",
            "BLOCK": str(BLOCK),
            "INODE": str(INODE),
            "INODES": str(inode_count(content)),
            "JOURNAL": str(JOURNAL // MIB),
            "IDENTITY": _identity("uuid", seed),
            "HASHING": _identity("hash", seed),
            "KIB": str(size // 1024),
            "OVERLAY": f"/out/{OVERLAY}",
            "OVERLAY_IDENTITY": _identity("overlay uuid", seed),
            "OVERLAY_HASHING": _identity("overlay hash", seed),
            "OVERLAY_KIB": "" if overlay is None else str(overlay // 1024),
            "MKE2FS_CONFIG": "/mke2fs.conf",
            # File times newer than this would be cut to it, so it is the newest of them; the file
            # system's own times are set to it.
            "SOURCE_DATE_EPOCH": str(content.newest),
            "LC_ALL": "C.UTF-8",  # in the C locale libarchive fails on names that are not ASCII
        },
    )
    xattr.check(xattrs, stage.scratch)


def _identity(purpose: str, seed: str) -> str:
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
