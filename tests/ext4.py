"""A reader of our ext4 file systems that looks at nothing but the bytes, checksums included."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import IO

from fcbuild.ext4 import inode
from fcbuild.ext4.form import BLOCK, GROUP, INODE
from fcbuild.ext4.inode import Inode

_TABLE: list[int] = []
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    _TABLE.append(_value)


def crc32c(seed: int, data: bytes) -> int:
    """CRC-32C bit by bit, as the kernel has it."""
    for byte in data:
        seed = _TABLE[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


class Disk:
    """One file system. Whatever is read of it is held to its checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.superblock = self._at(1024, 1024)
        self.seed = crc32c(0xFFFFFFFF, self.superblock[0x68:0x78])
        assert self.word(0x3FC) == crc32c(0xFFFFFFFF, self.superblock[:0x3FC])
        self.groups = -(-self.size // GROUP)

    def word(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.superblock, offset)[0])

    @property
    def size(self) -> int:
        """In blocks."""
        return self.word(0x4) | self.word(0x150) << 32

    @property
    def free_blocks(self) -> int:
        return self.word(0xC) | self.word(0x158) << 32

    @property
    def inodes_per_group(self) -> int:
        return self.word(0x28)

    def descriptor(self, group: int) -> bytes:
        raw = self._at(BLOCK + 64 * group, 64)
        number = struct.pack("<I", group)
        expected = crc32c(self.seed, number + raw[:0x1E] + bytes(2) + raw[0x20:]) & 0xFFFF
        assert struct.unpack_from("<H", raw, 0x1E)[0] == expected
        return raw

    def block(self, number: int) -> bytes:
        return self._at(number * BLOCK, BLOCK)

    def inode(self, number: int) -> Inode:
        group, index = divmod(number - 1, self.inodes_per_group)
        low, high = struct.unpack_from("<I28xI", self.descriptor(group), 8)
        raw = self._at((high << 32 | low) * BLOCK + index * INODE, INODE)
        low, high = struct.unpack_from("<H4xH", raw, 0x7C)
        bare = raw[:0x7C] + bytes(2) + raw[0x7E:0x82] + bytes(2) + raw[0x84:]
        assert crc32c(self.inode_seed(number), bare) == high << 16 | low, f"inode {number}"
        return inode.decode(raw)

    def inode_seed(self, number: int) -> int:
        return crc32c(self.seed, struct.pack("<II", number, 0))

    def data(self, number: int) -> bytes:
        return b"".join(inode.content(self.inode(number), self._file))

    def entries(self, number: int) -> Iterator[tuple[bytes, int, int]]:
        """The names in a directory, with their inodes and the types that it has for them."""
        content = self.data(number)
        for start in range(0, len(content), BLOCK):
            block = content[start : start + BLOCK]
            assert block[-12:-4] == struct.pack("<IHBB", 0, 12, 0, 0xDE)
            expected = crc32c(self.inode_seed(number), block[:-12])
            assert struct.unpack("<I", block[-4:])[0] == expected
            at = 0
            while at < BLOCK - 12:
                own, length, name, kind = struct.unpack_from("<IHBB", block, at)
                yield block[at + 8 : at + 8 + name], own, kind
                at += length
            assert at == BLOCK - 12

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Every path with its inode's number, in the order of the directories."""
        found = {"/": 2}
        pending = [("", 2)]
        while pending:
            parent, number = pending.pop(0)
            for name, own, kind in self.entries(number):
                if name not in (b".", b".."):
                    path = f"{parent}/{name.decode('utf-8', 'surrogateescape')}"
                    found[path] = own
                    if kind == 2:
                        pending.append((path, own))
        return found

    def find(self, path: str) -> Inode:
        return self.inode(self.numbers[path])

    def read(self, path: str) -> bytes:
        return self.data(self.numbers[path])

    def target(self, path: str) -> bytes:
        short = self.find(path).short_target
        return self.read(path) if short is None else short

    def xattrs(self, path: str) -> dict[str, bytes]:
        return self.find(path).xattrs(self._attributes)

    def _attributes(self, number: int) -> bytes:
        block = self.block(number)
        bare = block[:16] + bytes(4) + block[20:]
        expected = crc32c(crc32c(self.seed, struct.pack("<Q", number)), bare)
        assert struct.unpack_from("<I", block, 16)[0] == expected
        return block

    def _at(self, offset: int, size: int) -> bytes:
        return inode.read_at(self._file, offset, size)
