"""The files of a root filesystem: what is kept of the engine's tar, and what is refused."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fcbuild.build.files import Files
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError
from fcbuild.ext4.layout import Identity
from fcbuild.ext4.writer import PIECE
from fcbuild.tables import MIB
from tests.ext4 import Disk

Entry = tuple[tarfile.TarInfo, bytes]
Copied = Callable[..., Files]

IDENTITY = Identity(number=uuid.UUID(int=1), hashing=uuid.UUID(int=2))
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
    return tmp_path / "rootfs.ext4"


@pytest.fixture
def copied(path: Path) -> Iterator[Copied]:
    """Take the engine's tar of these entries, and finish the file system."""
    with Files(path, IDENTITY) as files:

        def copied(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> Files:
            files.copy(engines(*entries, form=form))
            files.finish(None, 0)
            return files

        yield copied


@pytest.fixture
def written(path: Path, copied: Copied) -> Iterator[Callable[..., Disk]]:
    """Take the engine's tar of these entries; return what is on the disk then."""
    with contextlib.ExitStack() as stack:

        def written(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> Disk:
            copied(*entries, form=form)
            return Disk(stack.enter_context(path.open("rb")))

        yield written


Written = Callable[..., Disk]

ENTRIES = [
    directory("./", mode=0o751, uid=5),
    directory("./etc", mode=0o750, uid=1, gid=2),
    entry("./etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mode=0o644),
    directory("./usr"),
    directory("./" + LONG.rpartition("/")[0]),
    entry(f"./{LONG}", b"long", uid=3_000_000_000, gid=4_000_000_000),
    entry("./a", b"x" * 513, mode=0o6755, uid=3, gid=4, mtime=1_000_000_000),
    entry("./soft", kind=tarfile.SYMTYPE, linkname="../" * 60 + "a"),
    entry("./fast", kind=tarfile.SYMTYPE, linkname="x" * 59),
    entry("./null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    entry("./loop", kind=tarfile.BLKTYPE, devmajor=7, devminor=300),
    entry("./pipe", kind=tarfile.FIFOTYPE),
    entry("./odd \udcff\n\"'\\é", b"odd"),
    entry("./last", b"last" * 20_000, mtime=-86400),
]
KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def at(info: tarfile.TarInfo) -> str:
    return "/" + info.name.removeprefix("./").rstrip("/")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_everything_is_written_as_it_came(written: Written, form: int) -> None:
    disk = written(*ENTRIES, form=form)
    assert set(disk.numbers) == {at(info) for info, _ in ENTRIES}
    for info, data in ENTRIES:
        made = disk.find(at(info))
        assert made.mode == KINDS[info.type] | info.mode, info.name
        assert (made.uid, made.gid, made.mtime) == (info.uid, info.gid, info.mtime), info.name
        if info.isreg():
            assert (disk.read(at(info)), made.size, made.links) == (data, len(data), 1)
        if info.issym():
            assert disk.target(at(info)) == info.linkname.encode()
        if info.isdev() and not info.isfifo():
            assert made.device == (info.devmajor, info.devminor)


def test_the_names_of_one_file_are_one_inode(written: Written) -> None:
    disk = written(
        entry("a", b"data"),
        entry("pipe", kind=tarfile.FIFOTYPE),
        entry("b", kind=tarfile.LNKTYPE, linkname="./a", mode=0, uid=9),
        entry("again", kind=tarfile.LNKTYPE, linkname="pipe"),
    )
    assert disk.numbers["/a"] == disk.numbers["/b"]
    assert (disk.find("/b").links, disk.find("/b").uid) == (2, 0)
    assert stat.S_ISFIFO(disk.find("/again").mode)


def test_times_are_whole_seconds_that_ext4_can_hold(path: Path, copied: Copied) -> None:
    stamps = {
        "fraction": ("1.9", 1),
        "before": ("-0.5", -1),
        "after": ("4102444800", 4102444800),
        "late": ("20000000000", 15032385535),
        "early": ("-2147483649", -(2**31)),
    }
    entries = [entry(name, pax_headers={"mtime": text}) for name, (text, _) in stamps.items()]
    files = copied(*entries)
    with path.open("rb") as file:
        disk = Disk(file)
        found = {name: disk.find(f"/{name}").mtime for name in stamps}
    assert found == {name: seconds for name, (_, seconds) in stamps.items()}
    assert files.untimely == ["/late", "/early"]


def test_extended_attributes_arrive(written: Written) -> None:
    acl = struct.pack("<I HHI HHI", 2, 1, 6, 0xFFFFFFFF, 2, 4, 1234)
    headers = {
        "SCHILY.xattr.user.note": "\x00\udcff\n=",
        "SCHILY.xattr.security.capability": "c" * 20,
        "SCHILY.xattr.system.posix_acl_access": acl.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.long": "long" * 500,
        "mtime": "1.5",
    }
    disk = written(
        entry("./file", b"", pax_headers=headers),
        entry("./again", kind=tarfile.LNKTYPE, linkname="file", pax_headers=headers),
        entry("./plain", b""),
        *(entry(f"./{n}", kind=k, pax_headers={"SCHILY.xattr.trusted.x": n}) for n, k in ODD),
    )
    expected = {
        "user.note": b"\x00\xff\n=",
        "security.capability": b"c" * 20,
        "system.posix_acl_access": acl,
        "user.long": b"long" * 500,
    }
    assert disk.xattrs("/file") == disk.xattrs("/again") == expected
    assert disk.xattrs("/plain") == {}
    for name, _ in ODD:
        assert disk.xattrs(f"/{name}") == {"trusted.x": name.encode()}


ODD = [("link", tarfile.SYMTYPE), ("dir", tarfile.DIRTYPE), ("dev", tarfile.CHRTYPE)]


@pytest.mark.parametrize("key", ["LIBARCHIVE.xattr.user.x", "SCHILY.acl.access"])
def test_an_extended_attribute_in_another_form_is_refused(copied: Copied, key: str) -> None:
    with pytest.raises(BuildError, match=f"/file: .* {key}"):
        copied(entry("file", pax_headers={key: "eA"}))


def test_attributes_that_ext4_does_not_take_are_refused_with_their_files(copied: Copied) -> None:
    strange = {"SCHILY.xattr.btrfs.compression": "zstd", "SCHILY.xattr.user.fine": "x"}
    with pytest.raises(BuildError) as caught:
        copied(
            entry("fine", pax_headers={"SCHILY.xattr.user.x": ""}),
            *(entry(f"file{number}", pax_headers=strange) for number in range(12)),
        )
    assert "btrfs.compression of /file0, " in caught.value.message
    assert caught.value.message.endswith("/file9, and 2 more")
    assert "fine" not in caught.value.message


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 5 << 20])
def test_zeros_become_holes_and_the_content_is_the_same(path: Path, size: int) -> None:
    data = b"head" + bytes(size) + b"tail"
    with Files(path, IDENTITY) as files:
        files.copy(engines(entry("sparse", data), entry("after", b"after")))
        node = files.tree.nodes["sparse"]
        assert files.tree.data(node, 0, len(data) + 9) == data
        assert files.tree.data(node, size + 4, 9) == b"tail"
        assert files.tree.data(node, len(data), 9) == b""
        files.finish(None, 0)
    with path.open("rb") as file:
        assert Disk(file).read("/sparse") == data
        assert Disk(file).read("/after") == b"after"


def test_holes_take_no_room(path: Path, copied: Copied) -> None:
    files = copied(entry("sparse", b"head" + bytes(64 << 20)))
    assert files.content < 5 << 20  # the journal's is most of it
    assert path.stat().st_blocks * 512 < 1 << 20
    assert path.stat().st_size < 8 << 20


def test_a_size_is_whole_mebibytes_and_leaves_what_is_asked_for(written: Written) -> None:
    disk = written(entry("a", b"x" * 5_000_000))
    assert disk.size % 256 == 0
    assert disk.free_blocks < 256 + 64


@pytest.mark.parametrize("free", [0, 8 * MIB, 300 * MIB])
def test_free_room_is_there(path: Path, free: int) -> None:
    with Files(path, IDENTITY) as files:
        size = files.finish(None, free)
    with path.open("rb") as file:
        disk = Disk(file)
        assert path.stat().st_size == size == disk.size * 4096
        assert disk.free_blocks * 4096 >= free
        assert disk.word(0x0) >= free // 16384  # and an inode for every 16 KiB of it


def test_a_size_that_is_asked_for_is_kept_or_refused(path: Path) -> None:
    with Files(path, IDENTITY) as files:
        files.file("a", 0o644, bytes(range(256)) * 4 * 12_000)
        with pytest.raises(BuildError) as caught:
            files.finish(16 * MIB, 0)
        assert "has 16 MiB and needs 17 MiB for its files alone" in caught.value.message
    with Files(path, IDENTITY) as files:
        assert files.finish(16 * MIB, 0) == 16 * MIB


@pytest.mark.parametrize("name", [".fcbuild", "./.fcbuild/", ".fcbuild/init", "/.fcbuild/boot"])
def test_the_place_of_the_boot_contract_is_refused(copied: Copied, name: str) -> None:
    with pytest.raises(BuildError, match=r"the image has a file /\.fcbuild"):
        copied(directory("etc"), entry(name, b"x"))


def test_a_name_that_only_begins_like_it_is_taken(written: Written) -> None:
    disk = written(entry(".fcbuildx", b"x"), entry("srv/.fcbuild", b"x"))
    srv = disk.find("/srv")  # nothing was said of it
    assert (srv.mode, srv.uid, srv.links) == (stat.S_IFDIR | 0o755, 0, 2)


def test_what_is_said_of_a_directory_later_holds(written: Written) -> None:
    disk = written(entry("srv/a", b"x"), directory("srv", mode=0o700, uid=7))
    assert (disk.find("/srv").mode & 0o777, disk.find("/srv").uid) == (0o700, 7)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([entry("../etc/passwd", b"x")], "outside of the image"),
        ([entry("a/../../b", b"x")], "outside of the image"),
        ([entry("hard", kind=tarfile.LNKTYPE, linkname="nowhere")], "hard link to /nowhere"),
        ([directory("d"), entry("h", kind=tarfile.LNKTYPE, linkname="d")], "which is a directory"),
        ([entry("what", kind=b"W")], "/what is of a kind"),
        ([entry("esc\x1b[2J/../x", b"")], r"esc\\x1b\[2J"),
        ([entry("a", b"1"), entry("./a", b"2")], "/a comes twice"),
        ([entry("a", b"1"), directory("a")], "/a comes twice"),
        ([entry("a", b"1"), entry("a/b", b"2")], "/a/b is in /a, which is no directory"),
        ([entry("l", kind=tarfile.SYMTYPE, linkname="/"), entry("l/b", b"")], "is no directory"),
        ([entry("x" * 256, b"")], "a name of 256 bytes"),
        ([entry("l", kind=tarfile.SYMTYPE, linkname="x" * 4096)], "a target of 4096 bytes"),
    ],
)
def test_what_no_image_holds_is_refused(copied: Copied, bad: list[Entry], said: str) -> None:
    with pytest.raises(BuildError, match=said):
        copied(*bad)


def test_a_tar_that_is_cut_off_is_noticed(path: Path) -> None:
    whole = engines(entry("a", b"x" * 5000)).getvalue()
    with pytest.raises(tarfile.TarError), Files(path, IDENTITY) as files:
        files.copy(io.BytesIO(whole[:2048]))


def test_what_is_added_is_roots(path: Path) -> None:
    with Files(path, IDENTITY) as files:
        files.copy(engines(entry("a", b"x", mtime=EPOCH + 5)))
        files.directory("d", 0o700)
        files.file("d/f", 0o600, b"data")
        files.link("l", "d")
        assert files.tree.data(files.tree.nodes["d/f"], 0, 9) == b"data"
        files.finish(None, 0)
    with path.open("rb") as file:
        disk = Disk(file)
        assert list(disk.numbers) == ["/", "/a", "/d", "/l", "/d/f"]
        for name, mode in (("/d", 0o700), ("/d/f", 0o600), ("/l", 0o777)):
            added = disk.find(name)
            assert stat.S_IMODE(added.mode) == mode
            assert (added.uid, added.gid, added.mtime) == (0, 0, EPOCH)


def test_a_tar_is_read_to_its_end(path: Path) -> None:
    """Else whoever writes it into a pipe fails at the padding that nobody takes any more."""
    source = io.BytesIO(engines(*ENTRIES).getvalue() + bytes(2 * PIECE))
    with Files(path, IDENTITY) as files:
        files.copy(source)
    assert source.read() == b""
