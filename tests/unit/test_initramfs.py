"""The initramfs writer: its archives are what cpio reads, and the same every time."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from fcbuild.errors import VmmError
from fcbuild.vmm import initramfs
from fcbuild.vmm.initramfs import CharDevice, Directory, Entry, RegularFile, Symlink


def posix(path: str) -> PurePosixPath:
    return PurePosixPath(path)


def archive(*entries: Entry) -> bytes:
    out = io.BytesIO()
    assert initramfs.write(out, entries) == len(out.getvalue())
    return out.getvalue()


def members(data: bytes) -> list[tuple[str, int, bytes]]:
    """Return (name, mode, content) of a newc archive, by its definition."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = (at + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert start == len(data)
            return found
        found.append((os.fsdecode(name[:-1]), mode, data[start : start + size]))
        at = (start + size + 3) & ~3


def test_adds_parents_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"12345")
    data = archive(
        RegularFile(posix("/init"), b"x", 0o755),
        Directory(posix("/a/run"), 0o700),
        RegularFile(posix("/a/b/c"), source),
        Symlink(posix("/a/b/d"), "/dev/vda"),
        Directory(posix("/a/run")),
        CharDevice(posix("/dev/console"), 5, 1),
    )
    assert members(data) == [
        ("init", 0o100755, b"x"),
        ("a", 0o040755, b""),
        ("a/run", 0o040700, b""),
        ("a/b", 0o040755, b""),
        ("a/b/c", 0o100644, b"12345"),
        ("a/b/d", 0o120777, b"/dev/vda"),
        ("dev", 0o040755, b""),
        ("dev/console", 0o020600, b""),
    ]


def test_is_repeatable(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 9000)
    first = archive(RegularFile(posix("/a"), source))
    os.utime(source, (1, 1))
    source.chmod(0o600)
    assert archive(RegularFile(posix("/a"), source)) == first


@pytest.mark.parametrize(
    "entries",
    [
        [RegularFile(posix("a"), b"")],
        [RegularFile(posix("/a/../b"), b"")],
        [Directory(posix("/"))],
        [RegularFile(posix("/a"), b""), Symlink(posix("/a"), "b")],
        [RegularFile(posix("/a"), b""), Directory(posix("/a"))],
        [Symlink(posix("/a"), "b"), RegularFile(posix("/a/c"), b"")],
    ],
)
def test_refuses(entries: list[Entry]) -> None:
    with pytest.raises(VmmError):
        archive(*entries)


def test_cpio_reads_it(tmp_path: Path) -> None:
    if (cpio := shutil.which("cpio")) is None:
        pytest.skip("cpio is not installed")
    data = archive(RegularFile(posix("/a/b"), b"content"), Symlink(posix("/a/c"), "b"))
    argv = [cpio, "-i", "--quiet", "--no-absolute-filenames"]
    subprocess.run(argv, input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "a/c").read_bytes() == b"content"
