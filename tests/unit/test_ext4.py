"""ext4's structures, written and read back; whole file systems are looked at by e2fsck and by a
kernel in the integration tests."""

from __future__ import annotations

import io
import stat
import struct
import uuid
from pathlib import Path

import pytest

from fcbuild.ext4 import attributes, inode, layout
from fcbuild.ext4.attributes import Unfit
from fcbuild.ext4.form import BLOCK, GROUP, checksum
from fcbuild.ext4.layout import Identity
from fcbuild.ext4.writer import PIECE, Meta, TooLarge, TooManyLinks, TooSmall, Writer
from tests.ext4 import Disk, crc32c

IDENTITY = Identity(number=uuid.UUID(int=1), hashing=uuid.UUID(int=2))
PLAIN = Meta(0o644, 0, 0, 0)
ROOT = 2


def test_the_checksum_is_the_kernels() -> None:
    # The check value of CRC-32C is of "123456789", with an inversion at the end.
    assert checksum(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283
    assert checksum(7, b"ab", b"cd") == crc32c(7, b"abcd")


def test_the_groups_that_begin_with_a_copy() -> None:
    assert list(layout.copies(130)) == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]


@pytest.mark.parametrize(
    ("used", "size"),
    [
        ([], 1),
        ([(0, 1)], 8),
        ([(3, 20)], 100),
        ([(0, GROUP)], GROUP),
        ([(5, 3), (6, 9)], GROUP + 9),
    ],
)
def test_a_bitmap_has_a_bit_for_each_that_is_used_and_for_what_is_not_there(
    used: list[tuple[int, int]], size: int
) -> None:
    bits = layout.bitmap(used, size)
    wanted = {number for first, count in used for number in range(first, first + count)}
    found = {number for number in range(len(bits) * 8) if bits[number // 8] >> number % 8 & 1}
    assert found == wanted | set(range(size, len(bits) * 8))
    assert len(bits) % BLOCK == 0
    assert layout.free(bits) == len(bits) * 8 - len(found)


def test_a_last_group_without_room_for_anything_is_left_out() -> None:
    assert layout.divide(GROUP + 3, 100).size == GROUP
    assert layout.divide(GROUP + 500, 100).size == GROUP + 500
    assert layout.divide(3 * GROUP, 1000).inodes == 336  # a third, in whole blocks


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *e) for e in entries)


NONE = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("xattrs", "inside", "outside"),
    [
        ({}, False, False),
        ({"user.a": b""}, True, False),
        ({"security.capability": bytes(20)}, True, False),
        ({"user.long": b"x" * 100}, False, True),
        ({"user.long": b"x" * 100, "user.a": b"b"}, True, True),
        ({f"trusted.{n}": b"%d" % n for n in range(40)}, True, True),
        ({"user.\udcff\n": b"\0\xff"}, True, False),
        ({"system.posix_acl_default": acl((1, 7, NONE), (8, 5, 70000))}, True, False),
        ({"user.most": b"y" * (4096 - 32 - 16 - 4 - 4)}, False, True),
    ],
)
def test_attributes_come_back_from_where_they_fit(
    xattrs: dict[str, bytes], inside: bool, outside: bool
) -> None:
    stored = attributes.encode(xattrs)
    assert (bool(stored.inode), stored.block is not None) == (inside, outside)
    assert len(stored.inode) <= 256 - 160
    assert attributes.decode(stored.inode, stored.block) == xattrs
    if stored.block:
        assert len(stored.block) == BLOCK


def test_an_acl_keeps_only_the_ids_that_mean_something() -> None:
    given = acl((1, 6, 5), (2, 4, 1234), (0x10, 6, 7), (0x20, 0, 9))
    stored = attributes.encode({"system.posix_acl_access": given})
    assert attributes.decode(stored.inode, stored.block) == {
        "system.posix_acl_access": acl((1, 6, NONE), (2, 4, 1234), (0x10, 6, NONE), (0x20, 0, NONE))
    }


@pytest.mark.parametrize(
    ("xattrs", "said"),
    [
        ({"btrfs.compression": b"zstd", "user.x": b""}, "no such"),
        ({"system.nfs4_acl": b""}, "no such"),
        ({"system.posix_acl_accessory": acl()}, "no such"),
        ({"user.x": b"x" * 4096}, "one block"),
        ({f"user.{n}": b"x" * 500 for n in range(8)}, "one block"),
        ({"user." + "n" * 256: b""}, "255 bytes"),
        ({"system.posix_acl_access": b""}, "not a POSIX ACL"),
        ({"system.posix_acl_access": acl(version=1)}, "not a POSIX ACL"),
        ({"system.posix_acl_access": acl((1, 6, 0))[:-1]}, "not a POSIX ACL"),
    ],
)
def test_what_ext4_cannot_hold_is_named(xattrs: dict[str, bytes], said: str) -> None:
    with pytest.raises(Unfit) as caught:
        attributes.encode(xattrs)
    assert said in caught.value.why
    assert set(caught.value.names) <= xattrs.keys()
    assert "user.x" not in caught.value.names or said == "one block"


@pytest.mark.parametrize(
    ("count", "taken"), [(0, 0), (4, 0), (5, 1), (340, 1), (341, 2), (1361, 6)]
)
def test_a_map_of_any_number_of_extents_is_read_back(count: int, taken: int) -> None:
    placed: dict[int, bytes] = {}

    def place(block: bytes) -> int:
        number = (1 << 33) + len(placed)
        placed[number] = block
        seed = inode.checksum_seed(12, 7)
        assert struct.unpack("<I", block[-4:])[0] == crc32c(seed, block[:-4])
        return number

    extents = [(3 * n, (1 << 32) + 5 * n, 2) for n in range(count)]
    map_, blocks = inode.extent_map(extents, place, inode.checksum_seed(12, 7))
    assert (len(map_), blocks, len(placed)) == (60, taken, taken)
    assert list(inode.extents(map_, placed.__getitem__)) == extents


def writer(file: io.BytesIO) -> Writer:
    return Writer(file, IDENTITY, Meta(0o755, 0, 0, 0))


def test_files_stand_in_their_order_over_the_copies_of_the_superblock(tmp_path: Path) -> None:
    piece = bytes(range(256)) * (PIECE // 256)
    with (tmp_path / "disk").open("w+b") as file:
        made = Writer(file, IDENTITY, Meta(0o755, 0, 0, 0))
        large = made.file(ROOT, b"large", PLAIN, (piece for _ in range(GROUP * BLOCK // PIECE + 9)))
        after = made.file(ROOT, b"after", PLAIN, [b"end"])
        assert made.read(large, GROUP * BLOCK, 300) == (piece * 2)[:300]
        made.finish(size=None)
        disk = Disk(file)
        extents = list(disk.inode(large).extents(disk.block))
        # The first group has 65 blocks less, and then comes the second's copy.
        assert extents[0] == (0, 65, GROUP - 65)
        assert extents[1][:2] == (GROUP - 65, GROUP + 65)
        last_of_large = extents[-1][1] + extents[-1][2]
        assert next(iter(disk.inode(after).extents(disk.block)))[1] == last_of_large
        assert disk.read("/after") == b"end"
        assert disk.groups == 2
        file.seek(GROUP * BLOCK)
        copy = file.read(1024)
        assert copy[0x38:0x3A] == b"\x53\xef" and copy[0x5A] == 1


def test_the_same_files_are_the_same_bytes_and_another_identity_is_another() -> None:
    def made(identity: Identity) -> bytes:
        file = io.BytesIO()
        writing = Writer(file, identity, Meta(0o755, 0, 0, 0))
        directory = writing.directory(ROOT, b"d", Meta(0o700, 1, 2, 3))
        writing.file(directory, b"f", PLAIN, [b"data"])
        writing.finish(size=None, free=1 << 20)
        return file.getvalue()

    assert made(IDENTITY) == made(IDENTITY)
    other = Identity(number=uuid.UUID(int=3), hashing=uuid.UUID(int=2))
    assert made(IDENTITY) != made(other)


def test_limits_are_told() -> None:
    made = writer(io.BytesIO())
    number = made.special(ROOT, b"p", PLAIN, stat.S_IFIFO)
    for name in range(64999):
        made.link(ROOT, b"%d" % name, number)
    with pytest.raises(TooManyLinks):
        made.link(ROOT, b"more", number)
    with pytest.raises(TooSmall) as caught:
        made.finish(size=4 << 20)
    assert 4 << 20 < caught.value.needed < 9 << 20
    with pytest.raises(TooLarge):
        writer(io.BytesIO()).finish(size=513 << 30)


def test_a_directory_counts_its_subdirectories() -> None:
    file = io.BytesIO()
    made = writer(file)
    for name in (b"a", b"b", b"c"):
        made.directory(made.directory(ROOT, name, PLAIN), b"inner", PLAIN)
    made.finish(size=None)
    disk = Disk(file)
    assert disk.find("/").links == 5
    assert disk.find("/a").links == 3
    assert len(disk.numbers) == 7
