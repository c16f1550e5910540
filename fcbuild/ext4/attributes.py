"""Extended attributes, as ext4 keeps them: a few in the inode, the others in a block of their own.

Source: Documentation/filesystems/ext4/attributes.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcbuild.errors import ImageError
from fcbuild.ext4.form import BLOCK, EXTRA, INODE, checksum

_MAGIC = 0xEA020000
_HEADER = 32  # bytes, of a block
_ENTRY = struct.Struct("<BBHIII")  # name's length and space, value's offset, inode and size, hash
_IN_INODE = INODE - 128 - EXTRA - 4  # bytes, behind the magic number

# The longest first: an access control list has no name besides its space.
_SPACES = {
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    1: "user.",
    4: "trusted.",
    6: "security.",
    7: "system.",
}
_ACLS = {_SPACES[2], _SPACES[3]}
_WRITTEN = (2, 3, 1, 4, 6)

_ACL_HEADER, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # posix_acl_xattr.h
_ACL_VERSION, _STORED_ACL_VERSION = 2, 1
_ACL_NAMED = {0x02, 0x08}  # ACL_USER and ACL_GROUP: these alone have an id on the disk
_NO_ID = 0xFFFFFFFF


class Unfit(Exception):
    """Attributes that ext4 cannot hold. names: of them; why: in words."""

    def __init__(self, why: str, names: Sequence[str]) -> None:
        super().__init__(why, names)
        self.why = why
        self.names = tuple(names)


@dataclass(frozen=True)
class Stored:
    """Attributes in the form of the disk. inode: what goes behind an inode's fields; block: the
    content of the block, without its checksum, or None for none."""

    inode: bytes
    block: bytes | None


def encode(xattrs: Mapping[str, bytes]) -> Stored:
    """Return the attributes in ext4's form. Raises Unfit."""
    if strange := [name for name in xattrs if _space(name) is None]:
        raise Unfit("ext4 has no such extended attributes", strange)
    entries = sorted(
        (_split(name), _stored_acl(name, value) if name in _ACLS else value, name)
        for name, value in xattrs.items()
    )
    # The inode takes what it has room for, each entry, its value and the list's end counted.
    inside, outside, left = [], [], _IN_INODE - 4
    for entry in entries:
        size = _size(entry)
        if size <= left:
            inside.append(entry)
            left -= size
        else:
            outside.append(entry)
    inode = struct.pack("<I", _MAGIC) + _list(inside, 0, _IN_INODE) if inside else b""
    if not outside:
        return Stored(inode, None)
    if sum(map(_size, outside)) + 4 > BLOCK - _HEADER:
        names = [name for _, _, name in outside]
        raise Unfit("all attributes of a file have to fit in one block of 4096 bytes", names)
    body = _list(outside, _HEADER, BLOCK)
    header = struct.pack("<IIII16x", _MAGIC, 1, 1, _block_hash(outside))
    return Stored(inode, header + body)


def sealed(block: bytes, number: int, seed: int) -> bytes:
    """Return a block of attributes with its checksum. number: where on the disk it will be."""
    value = checksum(seed, struct.pack("<Q", number), block)
    return block[:16] + struct.pack("<I", value) + block[20:]


def decode(tail: bytes, block: bytes | None) -> dict[str, bytes]:
    """Return the attributes of an inode: `tail` is what is behind its fields, `block` the content
    of the block that it names, if it names one. Raises ImageError."""
    magic = struct.pack("<I", _MAGIC)
    found: dict[str, bytes] = {}
    if tail[:4] == magic:
        found |= _read(tail[4:], 0)
    if block is not None:
        if block[:4] != magic:
            raise ImageError("a block that holds no extended attributes, where some should be")
        found |= _read(block, _HEADER)
    return found


_Entry = tuple[tuple[int, int, bytes], bytes, str]  # (space, name's length, name), value, in full


def _space(name: str) -> int | None:
    for space in _WRITTEN:
        prefix = _SPACES[space]
        if name == prefix if prefix in _ACLS else name.startswith(prefix):
            return space
    return None


def _split(name: str) -> tuple[int, int, bytes]:
    # In a block the kernel looks a name up in this order: ext4_xattr_cmp.
    space = _space(name)
    assert space is not None
    rest = name.removeprefix(_SPACES[space]).encode("utf-8", "surrogateescape")
    if len(rest) > 255:
        raise Unfit("the name of an extended attribute has at most 255 bytes", [name])
    return space, len(rest), rest


def _size(entry: _Entry) -> int:
    (_, length, _), value, _ = entry
    return _ENTRY.size + length + -length % 4 + len(value) + -len(value) % 4


def _list(entries: Sequence[_Entry], start: int, end: int) -> bytes:
    """Return entries from `start` on, and their values down from `end`; offsets count from 0."""
    data = bytearray(end)
    at, place = start, end
    for entry in entries:
        (space, length, name), value, _ = entry
        place -= len(value) + -len(value) % 4
        offset = place if value else 0
        _ENTRY.pack_into(data, at, length, space, offset, 0, len(value), _hash(entry))
        data[at + _ENTRY.size : at + _ENTRY.size + length] = name
        data[place : place + len(value)] = value
        at += _ENTRY.size + length + -length % 4
    return bytes(data[start:])


def _hash(entry: _Entry) -> int:
    """The hash of an entry: ext4_xattr_hash_entry."""
    (_, _, name), value, _ = entry
    found = 0
    for byte in name:
        found = (found << 5 ^ found >> 27 ^ byte) & 0xFFFFFFFF
    padded = value + bytes(-len(value) % 4)
    for (number,) in struct.iter_unpack("<I", padded):
        found = (found << 16 ^ found >> 16 ^ number) & 0xFFFFFFFF
    return found


def _block_hash(entries: Sequence[_Entry]) -> int:
    found = 0
    for entry in entries:
        own = _hash(entry)
        if own == 0:
            return 0  # such a block is shared with no other
        found = (found << 16 ^ found >> 16 ^ own) & 0xFFFFFFFF
    return found


def _stored_acl(name: str, value: bytes) -> bytes:
    """Turn an access control list from setxattr(2)'s form into ext4's."""
    try:
        (version,) = _ACL_HEADER.unpack_from(value)
        entries = list(_ACL_ENTRY.iter_unpack(value[_ACL_HEADER.size :]))
    except struct.error:
        version, entries = None, []
    if version != _ACL_VERSION:
        raise Unfit("not a POSIX ACL", [name])
    stored = _ACL_HEADER.pack(_STORED_ACL_VERSION)
    for tag, permissions, identity in entries:
        stored += struct.pack("<HH", tag, permissions)
        stored += struct.pack("<I", identity) if tag in _ACL_NAMED else b""
    return stored


def _read(data: bytes, at: int) -> dict[str, bytes]:
    """Read the attributes whose list begins at `at`; offsets of values count from data's start."""
    found: dict[str, bytes] = {}
    while data[at : at + 4] not in (b"", bytes(4)):
        if at + _ENTRY.size > len(data):
            raise ImageError("a damaged list of extended attributes")
        length, space, offset, elsewhere, size, _ = _ENTRY.unpack_from(data, at)
        name = data[at + _ENTRY.size : at + _ENTRY.size + length]
        value = data[offset : offset + size]
        if elsewhere or len(name) != length or len(value) != size or space not in _SPACES:
            raise ImageError("a damaged extended attribute, or one in a form no build of ours has")
        full = _SPACES[space] + name.decode("utf-8", "surrogateescape")
        found[full] = _read_acl(value) if full in _ACLS else value
        at += _ENTRY.size + length + -length % 4
    return found


def _read_acl(stored: bytes) -> bytes:
    """Turn an access control list from ext4's form into getxattr(2)'s."""
    if stored[:4] != _ACL_HEADER.pack(_STORED_ACL_VERSION):
        raise ImageError("an access control list in another form than ext4's")
    acl, at = _ACL_HEADER.pack(_ACL_VERSION), 4
    while at + 4 <= len(stored):
        tag, permissions = struct.unpack_from("<HH", stored, at)
        named = tag in _ACL_NAMED and at + 8 <= len(stored)
        identity = struct.unpack_from("<I", stored, at + 4)[0] if named else _NO_ID
        acl += _ACL_ENTRY.pack(tag, permissions, identity)
        at += 8 if named else 4
    return acl
