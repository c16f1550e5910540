"""Write an ELF file anew without the gaps that alignment leaves in it. Pure but for the two files.

A vmlinux for x86-64 has its text, read-only data and data at multiples of 2 MiB, so that they can
be mapped by large pages, and the file repeats the gaps: 5 to 8 MiB, of zeros and of int3. What a
loader makes of it in memory is not touched:

    pages of zeros    are no longer in the file: a segment's memory beyond its bytes is zero
    pages of int3     are read again and again from one block
    all else          follows without gaps, and the notes come after it

The section headers go: only debuggers and strip read them, and both want the unstripped file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fcbuild.errors import BuildError

PAGE = 4096
_INT3 = 0xCC
_BLOCK = 64 * PAGE  # of int3, in the file once
_LOAD, _NOTE = 1, 4

# elf(5): Elf64_Ehdr and Elf64_Phdr, little endian.
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


class _Segment(NamedTuple):
    type: int
    flags: int
    offset: int
    address: int
    physical: int
    filesz: int
    memsz: int
    align: int


class _Piece(NamedTuple):
    """Some pages of a segment. at: from the segment's start; kind: of what they are full."""

    at: int
    size: int
    kind: str


def pack(source: Path, target: Path) -> None:
    """Write `source`, a 64-bit little-endian ELF file that was linked, to `target`.

    Takes the memory of the file, twice. Raises BuildError for any other file.
    """
    data = source.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < _HEADER.size:
        raise BuildError(f"{source.name} is not a 64-bit ELF file")
    header = list(_HEADER.unpack_from(data))
    start, count = header[5], header[10]
    segments = [
        _Segment(*_SEGMENT.unpack_from(data, start + number * _SEGMENT.size))
        for number in range(count)
    ]
    made: list[tuple[_Segment, bytes]] = []  # offset: -1 for the block of int3
    for segment in segments:
        content = data[segment.offset : segment.offset + segment.filesz]
        made += _pieces(segment, content) if segment.type == _LOAD else [(segment, content)]
    out = bytearray(_HEADER.size + len(made) * _SEGMENT.size)
    block = 0
    table = []
    for segment, content in made:
        if segment.offset < 0 and not block:
            out += bytes(-len(out) % PAGE)
            block = len(out)
            out += bytes([_INT3]) * _BLOCK
        if segment.offset < 0:
            offset = block
        else:
            align = PAGE if segment.type == _LOAD else max(segment.align, 1)
            out += bytes((segment.address - len(out)) % align)
            offset = len(out)
            out += content
        table.append(segment._replace(offset=offset))
    header[5], header[10] = _HEADER.size, len(table)
    header[6] = header[12] = header[13] = 0  # no section headers
    _HEADER.pack_into(out, 0, *header)
    for number, segment in enumerate(table):
        _SEGMENT.pack_into(out, _HEADER.size + number * _SEGMENT.size, *segment)
    target.write_bytes(out)


def _pieces(segment: _Segment, content: bytes) -> Iterator[tuple[_Segment, bytes]]:
    """Yield what a segment becomes. Each piece's memory reaches up to the next one's."""
    pieces = [piece for piece in _runs(segment, content) if piece.kind != "zeros"]
    if not pieces or pieces[0].at:  # what begins with zeros claims its memory too
        pieces.insert(0, _Piece(0, 0, "bytes"))
    ends = [*(piece.at for piece in pieces[1:]), segment.memsz]
    for piece, end in zip(pieces, ends, strict=True):
        new = segment._replace(
            offset=-1 if piece.kind == "int3" else 0,
            address=segment.address + piece.at,
            physical=segment.physical + piece.at,
            filesz=piece.size,
            memsz=end - piece.at,
            align=PAGE,
        )
        yield new, content[piece.at : piece.at + piece.size]


def _runs(segment: _Segment, content: bytes) -> Iterator[_Piece]:
    """Yield the segment's pages in runs of one kind, those of int3 no longer than the block."""

    def kind(at: int) -> str:
        page = content[at : at + PAGE]
        if page.count(0) == len(page):
            return "zeros"
        whole = len(page) == PAGE and segment.address % PAGE == 0
        return "int3" if whole and page.count(_INT3) == PAGE else "bytes"

    for name, pages in groupby(range(0, len(content), PAGE), kind):
        places = list(pages)
        at, end = places[0], min(places[-1] + PAGE, len(content))
        step = _BLOCK if name == "int3" else end - at
        for begin in range(at, end, step):
            yield _Piece(begin, min(step, end - begin), name)
