"""Disks as the difference from others."""

from __future__ import annotations

import hashlib
import os
import random
import struct
from pathlib import Path

import pytest

from fcbuild.errors import ArtifactError
from fcbuild.publish import patch, zstd

MIB, BLOCK = 1 << 20, 4096
SEGMENT = MIB // 2


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work with small disks."""
    monkeypatch.setattr(patch, "SEGMENT", SEGMENT)
    monkeypatch.setattr(patch, "REACH", SEGMENT)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Disks:
    """A base, a new disk, the patch between them, and what it makes."""

    def __init__(self, directory: Path) -> None:
        names = ("base", "new", "patch", "made")
        self.base, self.new, self.patch, self.made = (directory / name for name in names)

    def diff(self, base: bytes, new: bytes) -> int:
        self.base.write_bytes(base)
        self.new.write_bytes(new)
        return patch.diff(self.base, self.new, self.patch)

    def apply(self) -> bytes:
        new = self.new.read_bytes()
        digest = hashlib.sha256(new).hexdigest()
        patch.apply(self.base, self.patch, self.made, digest=digest, size=len(new))
        return self.made.read_bytes()


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)


BASE = noise(6 * SEGMENT + 777)


@pytest.mark.parametrize(
    ("new", "most"),
    [
        (BASE, 10_000),
        (b"", 0),
        (BASE[:1000] + b"a changed line" + BASE[1014:], 10_000),
        (BASE[:MIB] + noise(BLOCK, 2) + BASE[MIB:], 15_000),
        (BASE[:MIB] + BASE[MIB + 5 * BLOCK :], 10_000),
        # Farther than the reference reaches.
        (BASE[:MIB] + noise(5 * SEGMENT, 3) + BASE[MIB:], 5 * SEGMENT + 20_000),
        (BASE[2 * MIB :], 10_000),
        (bytes(2 * SEGMENT), 1_000),
        (noise(SEGMENT + 1, 4), SEGMENT + 1000),
    ],
    ids=["same", "empty", "line", "grown", "shrunk", "moved", "moved back", "zeros", "new"],
)
def test_a_patch_makes_the_new_disk_and_is_as_small_as_the_change(
    disks: Disks, new: bytes, most: int
) -> None:
    assert disks.diff(BASE, new) <= most
    assert disks.patch.stat().st_size <= most
    assert disks.apply() == new


def test_a_base_may_be_empty(disks: Disks) -> None:
    disks.diff(b"", b"new" * 1000)
    assert disks.apply() == b"new" * 1000


def test_zeros_become_holes(disks: Disks) -> None:
    disks.diff(BASE, bytes(2 * SEGMENT) + b"x")
    disks.apply()
    assert disks.made.stat().st_blocks * 512 < MIB


def test_a_base_that_is_another_is_found_out(disks: Disks) -> None:
    disks.diff(BASE, BASE[:1000] + b"x" + BASE[1001:])
    disks.base.write_bytes(BASE[:2000] + b"!" + BASE[2001:])
    with pytest.raises(ArtifactError, match="does not fit"):
        disks.apply()
    assert not disks.made.exists()


def record(start: int, length: int, frame: bytes, size: int | None = None) -> bytes:
    return struct.pack("<QII", start, length, len(frame) if size is None else size) + frame


def frame(content: bytes) -> bytes:
    made = zstd.ZstdCompressor()
    return made.compress(content) + made.flush()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        record(0, 0, b"no frame"),
        record(0, 0, frame(b"x")[:-1], 20),
        record(0, 0, frame(b"x") * 2),
        record(0, 0, frame(bytes(SEGMENT + 1))),
        record(0, 0, frame(bytes(500 * MIB))),
        record(1 << 60, 10, frame(b"x")),
        record(0, 1 << 31, frame(b"x")),
        record(len(BASE), 1, frame(b"x")),
        record(0, 0, b"", (1 << 32) - 1),
        os.urandom(4000),
    ],
    ids=range(12),
)
def test_a_hostile_patch_leaves_nothing(disks: Disks, content: bytes) -> None:
    disks.diff(BASE, BASE[:5000])
    disks.patch.write_bytes(content)
    with pytest.raises(ArtifactError, match="does not fit"):
        disks.apply()
    assert not disks.made.exists()
