"""A directory's content: its entries, one after the other, none over the end of a block.

Source: Documentation/filesystems/ext4/directory.rst. There is no index: ext4 reads a directory that
has none from its start to its end.
"""

from __future__ import annotations

import struct

from fcbuild.ext4.form import BLOCK, checksum, word

# File types in an entry.
FILE, DIRECTORY, CHARACTER, BLOCK_DEVICE, FIFO, LINK = 1, 2, 3, 4, 5, 7

_TAIL = struct.Struct("<IHBBI")  # an entry without a name that holds the block's checksum
_ROOM = BLOCK - _TAIL.size


class Directory:
    """The entries of a directory, in the order in which they are added."""

    def __init__(self, own: int, parent: int) -> None:
        self.subdirectories = 0
        self._full: list[bytes] = []
        self._block = bytearray()
        self._last = 0  # where the last entry of the block begins
        self.add(b".", own, DIRECTORY)
        self.add(b"..", parent, DIRECTORY)

    def add(self, name: bytes, inode: int, kind: int) -> None:
        """Add an entry; nobody else has looked whether there is one of this name."""
        length = 8 + len(name) + -len(name) % 4
        if len(self._block) + length > _ROOM:
            self._close()
        self._last = len(self._block)
        self._block += struct.pack("<IHBB", inode, length, len(name), kind)
        self._block += name.ljust(length - 8, b"\0")

    def blocks(self, seed: int) -> list[bytes]:
        """Return the content, when all is added. seed: of the inode's checksums."""
        self._close()
        ends = _TAIL.pack(0, _TAIL.size, 0, 0xDE, 0)[:-4]
        return [block + ends + word(checksum(seed, block)) for block in self._full]

    def _close(self) -> None:
        # The last entry reaches to the end.
        struct.pack_into("<H", self._block, self._last + 4, _ROOM - self._last)
        self._full.append(bytes(self._block.ljust(_ROOM, b"\0")))
        self._block = bytearray()
