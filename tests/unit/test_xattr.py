"""Extended attributes: what debugfs is told, and what becomes of one that gets lost."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fcbuild.build import xattr
from fcbuild.build.xattr import Xattr
from fcbuild.errors import BuildError

ACCESS = "system.posix_acl_access"
ENTRIES = [(1, 6, 0xFFFFFFFF), (2, 6, 1234), (4, 4, 0xFFFFFFFF), (8, 4, 55), (0x20, 4, 7)]


def acl(entries: list[tuple[int, int, int]], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *e) for e in entries)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_each_attribute_is_set_from_a_file_and_read_back(tmp_path: Path) -> None:
    xattr.prepare([Xattr("/a b", 'user.x"y', b"\x00v"), Xattr("/c", "user.z", b"\x00v")], tmp_path)
    at = tmp_path / "xattrs"
    (value,) = (at / "values").iterdir()  # two of the same are one
    assert value.read_bytes() == b"\x00v"
    set_from = f"ea_set -f /xattrs/values/{value.name} ".encode()
    assert lines(at / "set") == [set_from + b'"/a b" "user.x""y"', set_from + b'"/c" "user.z"']
    assert lines(at / "get") == [
        b'ea_get -f /xattrs/read-back/0 "/a b" "user.x""y"',
        b'ea_get -f /xattrs/read-back/1 "/c" "user.z"',
    ]
    assert not list((at / "odd").iterdir())


@pytest.mark.parametrize("name", ["/a\nb", "/a\rb", "/" + "x" * 9000])
def test_what_no_line_can_hold_is_kept_apart(tmp_path: Path, name: str) -> None:
    xattr.prepare([Xattr("/before", "user.x", b""), Xattr(name, "user.x", b"")], tmp_path)
    at = tmp_path / "xattrs"
    assert len(lines(at / "set")) == len(lines(at / "get")) == 1
    assert {path.name for path in (at / "odd").iterdir()} == {"1.set", "1.get"}
    assert (at / "odd" / "1.set").read_bytes().endswith(f'"{name}" "user.x"'.encode())


def test_names_of_any_bytes_are_kept(tmp_path: Path) -> None:
    xattr.prepare([Xattr("/\udcff", "user.\udcfe", b"")], tmp_path)
    assert b'"/\xff" "user.\xfe"' in (tmp_path / "xattrs" / "set").read_bytes()


def test_an_acl_keeps_only_the_ids_that_mean_something(tmp_path: Path) -> None:
    xattr.prepare([Xattr("/a", ACCESS, acl(ENTRIES))], tmp_path)
    (value,) = (tmp_path / "xattrs" / "values").iterdir()
    kept = [(1, 6, 0), (2, 6, 1234), (4, 4, 0), (8, 4, 55), (0x20, 4, 0)]
    assert value.read_bytes() == acl(kept)


@pytest.mark.parametrize("value", [b"", b"\2\0\0", acl(ENTRIES)[:-1], acl(ENTRIES, version=1)])
def test_what_is_no_acl_is_refused(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(BuildError, match=r"not a POSIX ACL: system\.posix_acl_access of /a"):
        xattr.prepare([Xattr("/a", ACCESS, value)], tmp_path)


def test_an_attribute_that_ext4_does_not_know_is_refused_with_its_files(tmp_path: Path) -> None:
    strange = [Xattr(f"/file{number}", "btrfs.compression", b"zstd") for number in range(12)]
    with pytest.raises(BuildError) as caught:
        xattr.prepare([Xattr("/fine", "user.x", b""), *strange], tmp_path)
    assert "btrfs.compression of /file0, " in caught.value.message
    assert caught.value.message.endswith("/file9, and 2 more")
    assert "/fine" not in caught.value.message
    assert not (tmp_path / "xattrs").exists()


def test_what_was_read_back_is_compared(tmp_path: Path) -> None:
    given = [
        Xattr("/same", "user.x", b"v"),
        Xattr("/other", "user.x", b"v"),
        Xattr("/gone", "user.x", b"v"),
        Xattr("/acl", ACCESS, acl(ENTRIES)),
        Xattr("/empty\x1b", "user.x", b""),
    ]
    xattr.prepare(given, tmp_path)
    back = tmp_path / "xattrs" / "read-back"
    (back / "0").write_bytes(b"v")
    (back / "1").write_bytes(b"w")
    (back / "3").write_bytes(acl([(t, p, i if t in (2, 8) else 0) for t, p, i in ENTRIES]))
    with pytest.raises(BuildError) as caught:
        xattr.check(given, tmp_path)
    assert "user.x of /other, user.x of /gone, user.x of /empty\\x1b" in caught.value.message
    assert "/same" not in caught.value.message and "/acl" not in caught.value.message
    (back / "1").write_bytes(b"v")
    (back / "2").write_bytes(b"v")
    (back / "4").write_bytes(b"")
    xattr.check(given, tmp_path)
