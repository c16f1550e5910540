"""ext4's inodes, from bytes put together by hand after the kernel's description of them."""

from __future__ import annotations

import io
import stat
import struct
from typing import Any

import pytest

from fcbuild.errors import ImageError
from fcbuild.ext4 import inode
from fcbuild.ext4.form import BLOCK

EXTENTS = 0x80000


def raw(
    mode: int,
    *,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    flags: int = 0,
    block: bytes = b"",
    attributes: int = 0,
    tail: bytes = b"",
) -> bytes:
    """The 256 bytes of an inode with 32 bytes of extra fields."""
    data = bytearray(256)
    struct.pack_into("<HHI", data, 0, mode, uid & 0xFFFF, size & 0xFFFFFFFF)
    struct.pack_into("<I", data, 0x10, mtime & 0xFFFFFFFF)
    struct.pack_into("<HH", data, 0x18, gid & 0xFFFF, 1)
    struct.pack_into("<I", data, 0x20, flags)
    data[0x28 : 0x28 + len(block)] = block
    struct.pack_into("<II", data, 0x68, attributes & 0xFFFFFFFF, size >> 32)
    struct.pack_into("<HHH", data, 0x76, attributes >> 32, uid >> 16, gid >> 16)
    struct.pack_into("<H", data, 0x80, 32)
    # Two more bits of seconds, counted from what 32 bits with a sign say.
    signed = (mtime & 0xFFFFFFFF) - (1 << 32 if mtime & 0x80000000 else 0)
    struct.pack_into("<I", data, 0x88, (mtime - signed) >> 32)
    data[0xA0 : 0xA0 + len(tail)] = tail
    return bytes(data)


def node(*entries: bytes, depth: int = 0) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, len(entries), 4, depth, 0) + b"".join(entries)


def leaf(first: int, place: int, count: int) -> bytes:
    return struct.pack("<IHHI", first, count, place >> 32, place & 0xFFFFFFFF)


def index(first: int, place: int) -> bytes:
    return struct.pack("<IIHH", first, place & 0xFFFFFFFF, place >> 32, 0)


def no_block(number: int) -> bytes:
    raise AssertionError("nothing is to be read")


@pytest.mark.parametrize("mtime", [0, 1, 2**31 - 1, 2**31, 2208988800, -1, 2**33])
def test_times_reach_beyond_2038(mtime: int) -> None:
    assert inode.decode(raw(stat.S_IFREG, mtime=mtime)).mtime == mtime


def test_owners_and_sizes_have_their_upper_halves() -> None:
    found = inode.decode(raw(stat.S_IFREG | 0o4755, uid=70000, gid=4000000000, size=5 << 32))
    assert (found.mode, found.uid, found.gid) == (stat.S_IFREG | 0o4755, 70000, 4000000000)
    assert (found.size, found.links) == (5 << 32, 1)


@pytest.mark.parametrize(
    ("block", "device"),
    [
        (struct.pack("<II", 10 << 8 | 200, 0), (10, 200)),
        (struct.pack("<II", 0, 300 << 8 | 70000 & 0xFF | (70000 & ~0xFF) << 12), (300, 70000)),
    ],
)
def test_devices_in_old_and_new_numbers(block: bytes, device: tuple[int, int]) -> None:
    assert inode.decode(raw(stat.S_IFCHR, block=block)).device == device
    assert inode.decode(raw(stat.S_IFREG, block=block)).device is None


def test_a_short_target_is_in_the_inode_and_a_long_one_is_not() -> None:
    link = stat.S_IFLNK | 0o777
    assert inode.decode(raw(link, size=3, block=b"a\nb")).short_target == b"a\nb"
    long = inode.decode(raw(link, size=60, flags=EXTENTS, block=node(leaf(0, 1, 1))))
    assert long.short_target is None


def disk(blocks: int) -> io.BytesIO:
    return io.BytesIO(b"".join(bytes([number]) * BLOCK for number in range(blocks)))


def content(found: bytes, blocks: int = 32) -> bytes:
    return b"".join(inode.content(inode.decode(found), disk(blocks)))


def test_content_comes_from_its_blocks_and_holes_are_zeros() -> None:
    size = 5 * BLOCK + 7
    found = raw(stat.S_IFREG, size=size, flags=EXTENTS, block=node(leaf(1, 9, 2), leaf(4, 3, 2)))
    parts = [0, 9, 10, 0, 3, 4]
    assert content(found) == b"".join(bytes([p]) * BLOCK for p in parts)[:size]


def test_blocks_that_were_never_written_read_as_zeros() -> None:
    unwritten = leaf(0, 9, 32768 + 2)
    found = raw(stat.S_IFREG, size=BLOCK, flags=EXTENTS, block=node(unwritten))
    assert content(found) == bytes(BLOCK)


def test_a_tree_of_extents_is_followed() -> None:
    size = 2 * BLOCK
    found = inode.decode(
        raw(stat.S_IFREG, size=size, flags=EXTENTS, block=node(index(0, 2), depth=1))
    )
    image = disk(8)
    below = node(leaf(0, 5, 1), leaf(1, 4, 1))
    image.getbuffer()[2 * BLOCK : 2 * BLOCK + len(below)] = below
    assert b"".join(inode.content(found, image)) == b"\5" * BLOCK + b"\4" * BLOCK


def test_a_large_file_comes_in_pieces() -> None:
    found = raw(stat.S_IFREG, size=10 * inode.PIECE + 1, flags=EXTENTS, block=node())
    sizes = [len(piece) for piece in inode.content(inode.decode(found), disk(1))]
    assert sizes == [inode.PIECE] * 10 + [1]


LOOP = node(index(0, 0), depth=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"flags": EXTENTS, "block": bytes(60)}, "damaged tree"),
        ({"flags": EXTENTS, "block": node(leaf(0, 40, 1))}, "beyond the end"),
        ({"flags": EXTENTS, "block": node(leaf(1, 2, 1), leaf(0, 2, 1))}, "out of order"),
        ({"flags": EXTENTS, "block": node(leaf(9, 2, 1), leaf(9, 2, 1))}, "out of order"),
        ({"flags": EXTENTS, "block": node(leaf(0, 2, 0))}, "out of order"),
        ({"flags": EXTENTS, "block": struct.pack("<HHHHI", 0xF30A, 999, 4, 0, 0)}, "damaged tree"),
        ({"flags": EXTENTS, "block": node(index(0, 1 << 40), depth=1)}, "beyond the end"),
        ({"flags": EXTENTS, "block": node(index(0, 3), depth=9)}, "damaged tree"),
        ({"flags": 0x10000000}, "not in extents"),
        ({}, "not in extents"),
    ],
)
def test_a_damaged_map_is_said_to_be_so(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        content(raw(stat.S_IFREG, size=3 * BLOCK, **fields))


def test_a_tree_that_leads_to_itself_has_an_end() -> None:
    image = disk(4)
    image.getbuffer()[: len(LOOP)] = LOOP
    found = raw(stat.S_IFREG, size=BLOCK, flags=EXTENTS, block=LOOP)
    with pytest.raises(ImageError, match="damaged tree"):
        list(inode.content(inode.decode(found), image))


def attribute(prefix: int, name: bytes, offset: int, size: int, elsewhere: int = 0) -> bytes:
    fields = struct.pack("<BBHIII", len(name), prefix, offset, elsewhere, size, 0)
    return fields + name + bytes(-len(name) % 4)


MAGIC = struct.pack("<I", 0xEA020000)


def test_attributes_are_in_the_inode_and_in_a_block_of_their_own() -> None:
    # 96 bytes are left in the inode: 4 for the mark, then offsets count.
    own = attribute(6, b"capability", 72, 20)
    tail = MAGIC + own + bytes(72 - len(own)) + bytes(range(20))
    outside = MAGIC + bytes(28) + attribute(1, b"name with \xff", 4000, 3) + bytes(4)
    block = outside + bytes(4000 - len(outside)) + b"abc" + bytes(93)
    found = inode.decode(raw(stat.S_IFREG, tail=tail, attributes=7))
    assert found.xattrs({7: block}.__getitem__) == {
        "security.capability": bytes(range(20)),
        "user.name with \udcff": b"abc",
    }
    assert inode.decode(raw(stat.S_IFREG)).xattrs(no_block) == {}


def test_an_access_control_list_is_given_as_the_kernel_gives_it() -> None:
    stored = struct.pack("<I HH HHI HH HH", 1, 0x01, 6, 0x02, 4, 1234, 0x04, 4, 0x20, 0)
    tail = MAGIC + attribute(2, b"", 64, len(stored)) + bytes(48) + stored
    found = inode.decode(raw(stat.S_IFREG, tail=tail)).xattrs(no_block)
    none = 0xFFFFFFFF
    assert found == {
        "system.posix_acl_access": struct.pack(
            "<I HHI HHI HHI HHI",
            *(2, 1, 6, none, 2, 4, 1234, 4, 4, none, 0x20, 0, none),
        )
    }


@pytest.mark.parametrize(
    "tail",
    [
        MAGIC + attribute(1, b"far", 4000, 3),
        MAGIC + attribute(1, b"large", 40, 60000),
        MAGIC + attribute(9, b"unknown", 40, 3),
        MAGIC + attribute(1, b"elsewhere", 40, 3, elsewhere=12),
        MAGIC + attribute(2, b"", 40, 3),
        MAGIC + b"\xff" * 92,
    ],
)
def test_damaged_attributes_are_said_to_be_so(tail: bytes) -> None:
    with pytest.raises(ImageError, match=r"attribute|access control list"):
        inode.decode(raw(stat.S_IFREG, tail=tail)).xattrs(no_block)


def test_a_block_that_holds_no_attributes_is_refused() -> None:
    with pytest.raises(ImageError, match="a block that holds no extended attributes"):
        inode.decode(raw(stat.S_IFREG, attributes=7)).xattrs(lambda _: bytes(4096))
