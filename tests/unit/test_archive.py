"""The archive that mke2fs reads: what is kept of the engine's tar, and what is refused."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fcbuild.build import ext4
from fcbuild.build.archive import Archive
from fcbuild.build.xattr import Xattr
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError

Entry = tuple[tarfile.TarInfo, bytes]
Copied = Callable[..., Archive]

LONG = "usr/" + "d" * 120 + "/" + "f" * 120


def entry(
    name: str, data: bytes | None = None, kind: bytes = tarfile.REGTYPE, **fields: object
) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data or b""


def directory(name: str, **fields: int) -> Entry:
    return entry(name, None, tarfile.DIRTYPE, **fields)


def engines(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> io.BytesIO:
    """A tar as the engine writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return io.BytesIO(out.getvalue())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rootfs.tar"


@pytest.fixture
def copied(path: Path) -> Iterator[Copied]:
    """Make the archive of the engine's tar of these entries."""
    with Archive(path) as archive:

        def copied(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> Archive:
            archive.copy(engines(*entries, form=form))
            archive.finish()
            return archive

        yield copied


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive}


ENTRIES = [
    directory("./"),
    directory("./etc", mode=0o750, uid=1, gid=2),
    entry("./etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mode=0o644),
    directory("./usr"),
    directory("./" + LONG.rpartition("/")[0]),
    entry(f"./{LONG}", b"long", uid=3_000_000_000, gid=4_000_000_000),
    entry("./a", b"x" * 513, mode=0o6755, uid=3, gid=4, mtime=1_000_000_000),
    entry("./hard", kind=tarfile.LNKTYPE, linkname="./a"),
    entry("./soft", kind=tarfile.SYMTYPE, linkname="../" * 60 + "a"),
    entry("./null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    entry("./loop", kind=tarfile.BLKTYPE, devmajor=7, devminor=300),
    entry("./pipe", kind=tarfile.FIFOTYPE),
    entry("./odd \udcff\n\"'\\é", b"odd"),
    entry("./last", b"last" * 20_000, mtime=-86400),
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_everything_but_extended_attributes_is_written_as_it_came(
    path: Path, copied: Copied, form: int
) -> None:
    copied(*ENTRIES, form=form)
    found = members(path)
    assert list(found) == [info.name.removeprefix("./").rstrip("/") or "." for info, _ in ENTRIES]
    with tarfile.open(path) as archive:
        for info, data in ENTRIES:
            made = found[info.name.removeprefix("./").rstrip("/") or "."]
            for field in ("type", "mode", "uid", "gid", "size", "mtime", "devmajor", "devminor"):
                assert getattr(made, field) == getattr(info, field), (info.name, field)
            assert made.linkname == info.linkname.removeprefix("./")
            if info.isreg():
                file = archive.extractfile(made)
                assert file is not None and file.read() == data
    # Names in pax headers would have to be UTF-8.
    assert all(made.pax_headers == {} for made in found.values())


def test_other_tools_read_it(path: Path, copied: Copied) -> None:
    copied(*ENTRIES)
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, check=True).stdout
    assert len(listed.splitlines()) == len(ENTRIES)


def test_times_are_whole_seconds_that_ext4_can_hold(path: Path, copied: Copied) -> None:
    stamps = {
        "fraction": ("1.9", 1),
        "before": ("-0.5", -1),
        "late": ("4102444800", 2**31 - 1),
        "early": ("-2147483649", -(2**31)),
    }
    entries = [entry(name, pax_headers={"mtime": text}) for name, (text, _) in stamps.items()]
    archive = copied(*entries)
    found = members(path)
    assert {name: found[name].mtime for name in stamps} == {
        name: seconds for name, (_, seconds) in stamps.items()
    }
    assert archive.untimely == ["/late", "/early"]


def test_extended_attributes_are_kept_aside(copied: Copied) -> None:
    headers = {
        "SCHILY.xattr.user.note": "\x00\udcff\n=",
        "SCHILY.xattr.security.capability": "c",
        "mtime": "1.5",
    }
    archive = copied(
        entry("./file", b"", pax_headers=headers),
        entry("./again", kind=tarfile.LNKTYPE, linkname="file", pax_headers=headers),
        entry("./plain", b""),
    )
    assert archive.xattrs == [
        Xattr("/file", "user.note", b"\x00\xff\n="),
        Xattr("/file", "security.capability", b"c"),
    ]


@pytest.mark.parametrize("key", ["LIBARCHIVE.xattr.user.x", "SCHILY.acl.access"])
def test_an_extended_attribute_in_another_form_is_refused(copied: Copied, key: str) -> None:
    with pytest.raises(BuildError, match=f"/file: .* {key}"):
        copied(entry("file", pax_headers={key: "eA"}))


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 5 << 20])
def test_zeros_become_holes_and_the_content_is_the_same(
    path: Path, copied: Copied, size: int
) -> None:
    data = b"head" + bytes(size) + b"tail"
    archive = copied(entry("sparse", data), entry("after", b"after"))
    with tarfile.open(path) as found:
        for name, expected in (("sparse", data), ("after", b"after")):
            file = found.extractfile(name)
            assert file is not None and file.read() == expected
    node = archive.tree.nodes["sparse"]
    assert archive.tree.data(node, 0, len(data) + 9) == data
    assert archive.tree.data(node, size + 4, 9) == b"tail"


def test_holes_take_no_room(path: Path, copied: Copied) -> None:
    archive = copied(entry("sparse", b"head" + bytes(64 << 20)))
    assert archive.content.data < 1 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_content_is_counted_in_blocks(copied: Copied) -> None:
    archive = copied(
        directory("bin"),
        entry("bin/a", b"x", mtime=5),
        entry("bin/b", b"x" * 4097, mtime=9),
        entry("bin/hard", kind=tarfile.LNKTYPE, linkname="bin/a"),
        entry("bin/soft", kind=tarfile.SYMTYPE, linkname="x" * 59),
        entry("bin/long", kind=tarfile.SYMTYPE, linkname="x" * 60),
        entry("bin/null", kind=tarfile.CHRTYPE),
        entry("bin/note", b"", pax_headers={"SCHILY.xattr.user.x": "x"}),
        entry("bin/empty", b"", mtime=7),
    )
    blocks = {"bin": 1, "a": 1, "b": 2, "long": 1, "note": 1}
    assert archive.content.data == sum(blocks.values()) * ext4.BLOCK
    assert (archive.content.inodes, archive.content.newest) == (8, 9)
    # 8 bytes and the name, in whole words.
    assert archive.content.names == 12 + 12 + 12 + 12 + 12 + 12 + 12 + 12 + 16


@pytest.mark.parametrize("name", [".fcbuild", "./.fcbuild/", ".fcbuild/init", "/.fcbuild/boot"])
def test_the_place_of_the_boot_contract_is_refused(copied: Copied, name: str) -> None:
    with pytest.raises(BuildError, match=r"the image has a file /\.fcbuild"):
        copied(directory("etc"), entry(name, b"x"))


def test_a_name_that_only_begins_like_it_is_taken(copied: Copied) -> None:
    copied(entry(".fcbuildx", b"x"), entry("srv/.fcbuild", b"x"))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (entry("../etc/passwd", b"x"), "outside of the image"),
        (entry("a/../../b", b"x"), "outside of the image"),
        (entry("hard", kind=tarfile.LNKTYPE, linkname="nowhere"), "hard link to /nowhere"),
        (entry("what", kind=b"W"), "/what is of a kind"),
        (entry("esc\x1b[2J/../x", b""), r"esc\\x1b\[2J"),
    ],
)
def test_what_no_image_holds_is_refused(copied: Copied, bad: Entry, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        copied(bad)


def test_a_tar_that_is_cut_off_is_noticed(path: Path) -> None:
    whole = engines(entry("a", b"x" * 5000)).getvalue()
    with pytest.raises(tarfile.TarError), Archive(path) as archive:
        archive.copy(io.BytesIO(whole[:2048]))


def test_what_is_added_is_roots(path: Path) -> None:
    with Archive(path) as archive:
        archive.copy(engines(entry("a", b"x", mtime=EPOCH + 5)))
        archive.directory("d", 0o700)
        archive.file("d/f", 0o600, b"data")
        archive.finish()
        assert archive.content.inodes == 3
        assert archive.tree.data(archive.tree.nodes["d/f"], 0, 9) == b"data"
    found = members(path)
    assert list(found) == ["a", "d", "d/f"]
    for name, mode in (("d", 0o700), ("d/f", 0o600)):
        added = found[name]
        assert (added.mode, added.uid, added.gid, added.mtime) == (mode, 0, 0, EPOCH)
