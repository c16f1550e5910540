"""An ELF file without its gaps: the memory that a loader makes of it is the same."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fcbuild.build import elf
from fcbuild.errors import BuildError

PAGE = 4096
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
TOP = 0xFFFFFFFF81000000


def file(*segments: tuple[int, int, bytes, int]) -> bytes:
    """An ELF file of segments: type, address, bytes, size in memory."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = HEADER.pack(ident, 2, 62, 1, 0x1000123, 64, 999, 0, 64, 56, len(segments), 64, 7, 6)
    at = 2 * PAGE
    table, body = b"", b""
    for kind, address, content, memsz in segments:
        table += SEGMENT.pack(
            kind, 5, at + len(body), TOP + address, address, len(content), memsz, PAGE
        )
        body += content + bytes(-len(content) % PAGE)
    return (head + table).ljust(at, b"\0") + body


def loaded(data: bytes) -> tuple[dict[int, bytes], list[bytes], int]:
    """What is in memory after loading: pages that are not zero by address, the notes, the end."""
    head = HEADER.unpack_from(data)
    memory: dict[int, bytearray] = {}
    notes, end = [], 0
    for number in range(head[10]):
        kind, _, offset, address, physical, filesz, memsz, _ = SEGMENT.unpack_from(
            data, head[5] + 56 * number
        )
        content = data[offset : offset + filesz]
        assert len(content) == filesz
        if kind == 4:
            notes.append(content)
            continue
        assert address - physical == TOP
        assert offset % PAGE == address % PAGE
        end = max(end, physical + memsz)
        for at, byte in enumerate(content, start=physical):
            memory.setdefault(at // PAGE, bytearray(PAGE))[at % PAGE] = byte
    return {at: bytes(page) for at, page in memory.items() if any(page)}, notes, end


@pytest.fixture
def gaps() -> bytes:
    text = b"\x90" * 100 + bytes(10) + b"\xcc" * (130 * PAGE) + b"\xc3" * 50 + bytes(30 * PAGE)
    data = bytes(5 * PAGE) + b"data" * 3000 + bytes(9 * PAGE + 7)
    return file(
        (1, 0x1000000, text, 200 * PAGE),
        (1, 0x2000000, data, len(data) + 100 * PAGE),
        (1, 0x3000000, bytes(2 * PAGE), 2 * PAGE),
        (4, 0x1000000, b"note", 4),
    )


def test_the_memory_is_the_same_and_the_file_smaller(gaps: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "vmlinux", tmp_path / "packed"
    source.write_bytes(gaps)
    elf.pack(source, target)
    packed = target.read_bytes()
    assert loaded(packed) == loaded(gaps)
    assert len(packed) < len(gaps) / 2
    assert HEADER.unpack_from(packed)[4] == 0x1000123


def test_to_pack_twice_changes_no_memory(gaps: bytes, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(gaps)
    elf.pack(first, second)
    elf.pack(second, third)
    assert loaded(third.read_bytes()) == loaded(gaps)


def test_the_same_file_makes_the_same_bytes(gaps: bytes, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(gaps)
        elf.pack(tmp_path / name, tmp_path / "out")
        made.append((tmp_path / "out").read_bytes())
    assert made[0] == made[1]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(b"MZ" * 100)
    with pytest.raises(BuildError, match="Image is not a 64-bit ELF file"):
        elf.pack(path, tmp_path / "out")
