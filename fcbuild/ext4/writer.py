"""Write an ext4 file system in one pass, while its files arrive, its size known at the end.

    superblock, room for descriptors | files, as they come | directories | bitmaps, inodes | journal

flex_bg lets a group's bitmaps and inodes stand anywhere, so they stand behind the files, when it is
known how many there are. What is written depends on what is added, in which order, and on nothing
else. Blocks are taken one after the other; the copies of the superblock are left out on the way.

Cost: the bytes of the files are written once and not kept; memory is about half a KiB for each file
(its inode, its name in its directory). Time grows with both.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from fcbuild.ext4 import attributes, directory, inode, layout
from fcbuild.ext4.attributes import Stored
from fcbuild.ext4.directory import Directory
from fcbuild.ext4.form import (
    BLOCK,
    DESCRIPTOR,
    FIRST_INODE,
    GROUP,
    INODE,
    JOURNAL,
    JOURNAL_INODE,
    MAX_LINKS,
    ROOT,
    blocks,
)
from fcbuild.ext4.inode import EXTENTS, MAX_EXTENT, Extent
from fcbuild.ext4.layout import RESERVED, Geometry, Group, Identity

PIECE = 1 << 16  # bytes of a file that are written at a time; a hole is as long, at least
_ZEROS = bytes(PIECE)
_NOTHING = Stored(b"", None)

# Room for files that the guest makes: a fifth more than there are, and not less than this; and one
# for so many bytes that are free, as mke2fs has it.
_SPARE_INODES, _BYTES_FOR_AN_INODE = 1024, 16384

_SPECIAL = {
    stat.S_IFCHR: directory.CHARACTER,
    stat.S_IFBLK: directory.BLOCK_DEVICE,
    stat.S_IFIFO: directory.FIFO,
}


class TooSmall(Exception):
    """What is in the file system has no room in the size that it is to have. needed: bytes."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class TooLarge(Exception):
    """The file system would be larger than it can be described: 512 GiB."""


class TooManyLinks(Exception):
    """A file has more names than an inode can have: 65,000."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a file of any kind. mode: permission bits; mtime: seconds since 1970, within
    form.OLDEST and form.NEWEST; xattrs: Stored, by attributes.encode."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Stored = _NOTHING


@dataclass(slots=True)
class _Inode:
    meta: Meta
    kind: int
    links: int
    size: int = 0
    held: int = 0
    flags: int = 0
    map: bytes = bytes(60)
    attributes: int = 0


class Writer:
    """A file system that is being written to a file. Inodes are named by their numbers.

    file: empty, to be written, read and sought in; the caller closes it.
    """

    def __init__(self, file: IO[bytes], identity: Identity, root: Meta) -> None:
        self._file = file
        self._identity = identity
        self._seed = identity.seed
        self._next = 1 + RESERVED
        self._at = 0  # where the file stands
        self._used: list[tuple[int, int]] = []
        self._inodes: dict[int, _Inode] = {ROOT: _Inode(root, stat.S_IFDIR, 2)}
        self._last = FIRST_INODE - 1
        self._directories = {ROOT: Directory(ROOT, ROOT)}
        self._newest = max(root.mtime, 0)

    def directory(self, parent: int, name: bytes, meta: Meta) -> int:
        """Add an empty directory to a directory."""
        number = self._new(meta, stat.S_IFDIR, 2)
        self._directories[number] = Directory(number, parent)
        self._directories[parent].add(name, number, directory.DIRECTORY)
        self._directories[parent].subdirectories += 1
        return number

    def change(self, number: int, meta: Meta) -> None:
        """Say something else about a directory."""
        self._inodes[number].meta = meta
        self._newest = max(self._newest, meta.mtime)

    def file(self, parent: int, name: bytes, meta: Meta, data: Iterable[bytes]) -> int:
        """Add a file. data: its bytes; every piece but the last has PIECE bytes, and one of nothing
        but zeros becomes a hole."""
        number = self._new(meta, stat.S_IFREG)
        self._directories[parent].add(name, number, directory.FILE)
        size, extents = self._write(data)
        self._hold(number, size, extents)
        return number

    def symlink(self, parent: int, name: bytes, meta: Meta, target: bytes) -> int:
        """Add a symbolic link to a target of at most form.MAX_TARGET bytes."""
        number = self._new(meta, stat.S_IFLNK)
        self._directories[parent].add(name, number, directory.LINK)
        own = self._inodes[number]
        if len(target) < len(own.map):
            own.size, own.map = len(target), target.ljust(len(own.map), b"\0")
        else:
            size, extents = self._write([target])
            self._hold(number, size, extents)
        return number

    def special(
        self, parent: int, name: bytes, meta: Meta, kind: int, device: tuple[int, int] = (0, 0)
    ) -> int:
        """Add a device or a fifo. kind: S_IFCHR, S_IFBLK or S_IFIFO; device: major and minor."""
        number = self._new(meta, kind)
        self._directories[parent].add(name, number, _SPECIAL[kind])
        if kind != stat.S_IFIFO:
            self._inodes[number].map = inode.device_map(*device)
        return number

    def link(self, parent: int, name: bytes, number: int) -> None:
        """Add another name of a file. Raises TooManyLinks."""
        own = self._inodes[number]
        if own.links == MAX_LINKS:
            raise TooManyLinks
        own.links += 1
        known = {stat.S_IFREG: directory.FILE, stat.S_IFLNK: directory.LINK, **_SPECIAL}
        self._directories[parent].add(name, number, known[own.kind])

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return bytes of a file that was added."""
        own = self._inodes[number]
        wanted = min(size, own.size - offset)
        found, at = bytearray(max(wanted, 0)), 0
        for first, place, count in self._extents(own):
            start, end = max(first * BLOCK, offset), min((first + count) * BLOCK, offset + wanted)
            if start < end:
                self._file.seek((place - first) * BLOCK + start)
                at = start - offset
                found[at : at + end - start] = self._file.read(end - start)
        self._at = self._file.tell()
        return bytes(found)

    def overwrite(self, number: int, offset: int, data: bytes) -> None:
        """Change bytes of a file that was added; none of them may be in a hole."""
        for first, place, count in self._extents(self._inodes[number]):
            start = max(first * BLOCK, offset)
            end = min((first + count) * BLOCK, offset + len(data))
            if start < end:
                self._file.seek((place - first) * BLOCK + start)
                self._file.write(data[start - offset : end - offset])
        self._at = self._file.tell()

    @property
    def content(self) -> int:
        """Bytes of all blocks that files hold."""
        return sum(count for _, count in self._used) * BLOCK

    @property
    def count(self) -> int:
        """Inodes in use, the root's among them."""
        return len(self._inodes)

    def finish(self, *, size: int | None, free: int = 0, unit: int = 1 << 20) -> int:
        """Write all that is not files' content, and return the size in bytes.

        size: in bytes, whole blocks; None for what is needed plus `free` bytes, in whole units.
        Raises TooSmall, TooLarge.
        """
        for number, own in self._directories.items():
            found = own.blocks(inode.checksum_seed(number, self._seed))
            length, extents = self._write(found)
            self._hold(number, length, extents)
            links = 2 + own.subdirectories
            self._inodes[number].links = links if links < MAX_LINKS else 1  # 1: too many to count
        length, extents = self._write([layout.journal(self._identity)])
        rest = [
            (1 + first, place, count) for first, place, count in self._take(blocks(JOURNAL) - 1)
        ]
        self._inodes[JOURNAL_INODE] = _Inode(Meta(0o600, 0, 0, self._newest), stat.S_IFREG, 1)
        self._hold(JOURNAL_INODE, JOURNAL, _joined([*extents, *rest]))
        geometry = self._divide(size, free, unit)
        self._describe(geometry)
        self._file.flush()
        self._file.truncate(geometry.size * BLOCK)
        return geometry.size * BLOCK

    def _new(self, meta: Meta, kind: int, links: int = 1) -> int:
        self._last += 1
        self._inodes[self._last] = own = _Inode(meta, kind, links)
        self._newest = max(self._newest, meta.mtime)
        if meta.xattrs.block is not None:
            ((_, own.attributes, _),) = self._take(1)
            own.held += 1
            sealed = attributes.sealed(meta.xattrs.block, own.attributes, self._seed)
            self._put(own.attributes, sealed)
        return self._last

    def _hold(self, number: int, size: int, extents: list[Extent]) -> None:
        """Note where the content of an inode is."""
        own = self._inodes[number]
        seed = inode.checksum_seed(number, self._seed)
        own.map, taken = inode.extent_map(extents, self._place, seed)
        own.held += sum(count for _, _, count in extents) + taken
        own.size = size
        own.flags |= EXTENTS

    def _extents(self, own: _Inode) -> Iterator[Extent]:
        if not own.flags & EXTENTS:
            return iter(())

        def block(number: int) -> bytes:
            self._file.seek(number * BLOCK)
            return self._file.read(BLOCK)

        return inode.extents(own.map, block)

    def _write(self, data: Iterable[bytes]) -> tuple[int, list[Extent]]:
        """Write content to the next blocks; return its size and where it is."""
        size, extents = 0, list[Extent]()
        for piece in data:
            if piece != _ZEROS:
                start = 0
                for first, place, count in self._take(blocks(len(piece))):
                    extents.append((size // BLOCK + first, place, count))
                    part = piece[start : start + count * BLOCK]
                    self._put(place, part.ljust(count * BLOCK, b"\0"))
                    start += count * BLOCK
            size += len(piece)
        return size, _joined(extents)

    def _place(self, block: bytes) -> int:
        ((_, place, _),) = self._take(1)
        self._put(place, block)
        return place

    def _put(self, place: int, data: bytes) -> None:
        if self._at != place * BLOCK:
            self._file.seek(place * BLOCK)
        self._file.write(data)
        self._at = place * BLOCK + len(data)

    def _take(self, wanted: int) -> Iterator[Extent]:
        """Take the next blocks; yield them in runs, numbered from 0."""
        done = 0
        while done < wanted:
            group, within = divmod(self._next, GROUP)
            if within == 0 and layout.has_copy(group):
                self._next += 1 + RESERVED
            count = min(wanted - done, GROUP - self._next % GROUP)
            yield done, self._claim(count), count
            done += count

    def _claim(self, count: int) -> int:
        place = self._next
        self._next += count
        if self._used and sum(self._used[-1]) == place:
            place_before, count_before = self._used[-1]
            self._used[-1] = (place_before, count_before + count)
        else:
            self._used.append((place, count))
        return place

    def _divide(self, size: int | None, free: int, unit: int) -> Geometry:
        """Find the size and the number of inodes that go together."""
        count = self.count + FIRST_INODE
        wanted = count + max(count // 5 + _SPARE_INODES, free // _BYTES_FOR_AN_INODE)
        if size is not None:
            wanted = max(wanted, size // _BYTES_FOR_AN_INODE)
        total = blocks(size or unit)
        while True:
            geometry = layout.divide(total, wanted)
            if geometry.groups > layout.MAX_GROUPS:
                raise TooLarge
            needed = self._end(geometry) + blocks(free if size is None else 0)
            needed = blocks(-(-needed * BLOCK // unit) * unit)
            if needed <= total:
                return geometry
            if size is not None:
                raise TooSmall(needed * BLOCK)
            total = needed

    def _end(self, geometry: Geometry) -> int:
        """Return where the tables of this geometry would end. Bitmaps of a run of groups, and each
        table, stand in one piece."""
        place = self._next
        for count in (1, geometry.table):
            for _ in range(geometry.groups * (2 if count == 1 else 1)):
                place = _fit(place, count) + count
        return place

    def _whole(self, count: int) -> int:
        """Take blocks in one piece; return the first."""
        self._next = _fit(self._next, count)
        return self._claim(count)

    def _describe(self, geometry: Geometry) -> None:
        """Write inodes, bitmaps, descriptors and superblocks."""
        groups = range(geometry.groups)
        maps = [(self._whole(1), self._whole(1)) for _ in groups]
        tables = [self._whole(geometry.table) for _ in groups]
        used = [(1, geometry.descriptors), (0, 1), *self._used]
        for number in layout.copies(geometry.groups):
            used.append((number * GROUP, 1 + geometry.descriptors))
        bits = layout.bitmap(used, geometry.size)
        described: list[Group] = []
        for number in groups:
            first = number * geometry.inodes + 1
            mine = range(first, min(first + geometry.inodes, self._last + 1))
            # The special inodes are in use, whatever they hold.
            inodes = layout.bitmap([(0, len(mine))], geometry.inodes)
            self._put_inodes(tables[number], mine)
            within = bytes(bits[number * BLOCK : (number + 1) * BLOCK])
            described.append(
                Group(
                    block_bitmap=maps[number][0],
                    inode_bitmap=maps[number][1],
                    table=tables[number],
                    blocks=within,
                    inodes=bytes(inodes),
                    free_blocks=layout.free(within),
                    free_inodes=geometry.inodes - len(mine),
                    directories=sum(1 for n in mine if n in self._directories),
                    unused_inodes=geometry.inodes - len(mine),
                )
            )
            self._put(maps[number][0], within)
            self._put(maps[number][1], bytes(inodes))
        descriptors = b"".join(
            layout.descriptor(number, group, geometry, self._seed)
            for number, group in enumerate(described)
        )
        assert len(descriptors) == geometry.groups * DESCRIPTOR
        journal = self._inodes[JOURNAL_INODE]
        for number in layout.copies(geometry.groups):
            head = layout.superblock(
                self._identity,
                geometry,
                group=number,
                free_blocks=sum(group.free_blocks for group in described),
                free_inodes=sum(group.free_inodes for group in described),
                time=self._newest,
                journal=(journal.map, journal.size),
            )
            # The first one leaves room for a boot loader.
            block = head if number else bytes(len(head)) + head
            self._put(number * GROUP, block.ljust(BLOCK, b"\0") + descriptors)

    def _put_inodes(self, table: int, numbers: range) -> None:
        piece: list[bytes] = []
        for number in numbers:
            own = self._inodes.get(number)
            piece.append(bytes(INODE) if own is None else self._encoded(number, own))
        if piece:
            self._put(table, b"".join(piece))

    def _encoded(self, number: int, own: _Inode) -> bytes:
        return inode.encode(
            number,
            self._seed,
            mode=own.kind | own.meta.mode,
            uid=own.meta.uid,
            gid=own.meta.gid,
            size=own.size,
            mtime=own.meta.mtime,
            links=own.links,
            held=own.held,
            flags=own.flags,
            map_=own.map,
            attributes=own.attributes,
            tail=own.meta.xattrs.inode,
        )


def _fit(place: int, count: int) -> int:
    """Return the next place for so many blocks in one piece, from `place` on: over no copy of the
    superblock."""
    while True:
        group, within = divmod(place, GROUP)
        if within < 1 + RESERVED and layout.has_copy(group):
            place = group * GROUP + 1 + RESERVED
        copy = next(
            (
                following
                for following in range(group + 1, (place + count - 1) // GROUP + 1)
                if layout.has_copy(following)
            ),
            None,
        )
        if copy is None:
            return place
        place = copy * GROUP


def _joined(extents: Iterable[Extent]) -> list[Extent]:
    """Join extents that follow each other in the file and on the disk."""
    found: list[Extent] = []
    for first, place, count in extents:
        if found:
            before, there, length = found[-1]
            if (
                before + length == first
                and there + length == place
                and length + count <= MAX_EXTENT
            ):
                found[-1] = (before, there, length + count)
                continue
        found.append((first, place, count))
    return found
