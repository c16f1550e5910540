"""Root filesystems: what a scan of the image's tar finds, what is added to it, and the sizes."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from fcbuild.build import ext4, rootfs
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError
from fcbuild.tables import MIB

Entry = tuple[tarfile.TarInfo, bytes]

LONG = "usr/" + "d" * 120 + "/" + "f" * 120
PASSWD = "root:x:0:0::/root:/bin/sh\n"


def entry(
    name: str, data: bytes | None = None, kind: bytes = tarfile.REGTYPE, **fields: object
) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data or b"")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data or b""


def directory(name: str) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE)


def tar(path: Path, *entries: Entry, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rootfs.tar"


@pytest.mark.parametrize("prefix", ["", "./", "/"])
def test_user_databases_are_read(path: Path, prefix: str) -> None:
    found = rootfs._scan(
        tar(
            path,
            directory(f"{prefix}etc/"),
            entry(f"{prefix}etc/passwd", PASSWD.encode()),
            entry(f"{prefix}etc/group", b"root:x:0:\xff\n"),
            entry(f"{prefix}srv/etc/passwd", b"not this one"),
        )
    )
    assert found.texts == {"etc/passwd": PASSWD, "etc/group": "root:x:0:\ufffd\n"}


def test_a_user_database_that_is_no_file_is_not_read(path: Path) -> None:
    link = entry("etc/passwd", kind=tarfile.SYMTYPE, linkname="/proc/1/environ")
    assert rootfs._scan(tar(path, link)).texts == {}


@pytest.mark.parametrize("name", [".fcbuild", "./.fcbuild/", ".fcbuild/init", "/.fcbuild/boot"])
def test_the_place_of_the_boot_contract_is_refused(path: Path, name: str) -> None:
    with pytest.raises(BuildError, match=r"the image has a file /\.fcbuild"):
        rootfs._scan(tar(path, directory("etc"), entry(name, b"x")))


def test_a_name_that_only_begins_like_it_is_taken(path: Path) -> None:
    rootfs._scan(tar(path, entry(".fcbuildx", b"x"), entry("srv/.fcbuild", b"x")))


def test_content_is_counted_in_blocks_and_hard_links_cost_no_data(path: Path) -> None:
    found = rootfs._scan(
        tar(
            path,
            directory("bin"),
            entry("bin/a", b"x", mtime=5),
            entry("bin/b", b"x" * 4097, mtime=9),
            entry("bin/empty", b"", mtime=7),
        )
    )
    blocks = 1 + 1 + 2 + 0
    assert (found.content.data, found.content.inodes) == (blocks * ext4.BLOCK, 4)
    assert found.content.newest == 9


def test_only_extended_attributes_that_get_lost_are_told(path: Path) -> None:
    found = rootfs._scan(
        tar(
            path,
            entry("kept", pax_headers={"SCHILY.xattr.security.capability": "x"}),
            entry("lost", pax_headers={"SCHILY.xattr.user.note": "x"}),
            entry("plain", pax_headers={"mtime": "1.5"}),
        )
    )
    assert found.dropped == ["/lost"]


ENTRIES = [
    directory("./"),
    directory("./etc"),
    entry("./etc/passwd", PASSWD.encode()),
    entry("./run/keep", b"1"),
    entry(f"./{LONG}", b"long"),
    entry("./bin/a", b"x" * 513, mode=0o4755, uid=3, gid=4),
    entry("./bin/hard", kind=tarfile.LNKTYPE, linkname="./bin/a"),
    entry("./bin/soft", kind=tarfile.SYMTYPE, linkname="a"),
    entry("./dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    entry("./bin/last", b"last" * 2000, pax_headers={"SCHILY.xattr.security.capability": "c"}),
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("count", range(len(ENTRIES) + 1))
def test_what_is_added_comes_behind_everything_that_was_there(
    path: Path, count: int, form: int
) -> None:
    tar(path, *ENTRIES[:count], form=form)
    files = rootfs._scan(path)
    rootfs._append(path, files, b"\x7fELF init", b"boot config")
    with tarfile.open(path) as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
        names = list(members)
        before = [info.name.removeprefix("./").rstrip("/") for info, _ in ENTRIES[:count]]
        assert [name or "." for name in before] == names[:count]
        assert names[-3:] == [".fcbuild", ".fcbuild/init", ".fcbuild/boot"]
        for name, data in {"init": b"\x7fELF init", "boot": b"boot config"}.items():
            file = archive.extractfile(members[f".fcbuild/{name}"])
            assert file is not None
            assert file.read() == data
    modes = {name: members[f".fcbuild{name}"].mode for name in ["", "/init", "/boot"]}
    assert modes == {"": 0o755, "/init": 0o755, "/boot": 0o600}
    for name in names[count:]:
        added = members[name]
        assert (added.uid, added.gid, added.mtime) == (0, 0, EPOCH)
    listed = subprocess.run(
        ["tar", "-tf", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert len(listed.splitlines()) == len(names)
    # What was added is counted too, so that there is room for it.
    assert files.content.inodes == len(names)


def test_mount_points_are_added_only_where_they_are_missing(path: Path) -> None:
    present = [
        directory("proc"),
        entry("run", kind=tarfile.SYMTYPE, linkname="var/run"),
        entry("dev/null", b""),
    ]
    tar(path, *present)
    rootfs._append(path, rootfs._scan(path), b"", b"")
    with tarfile.open(path) as archive:
        added = {
            member.name.removeprefix("./"): (member.isdir(), member.mode)
            for member in archive.getmembers()[len(present) :]
        }
    assert {name: found for name, found in added.items() if not name.startswith(".fcbuild")} == {
        "sys": (True, 0o755),
        "tmp": (True, 0o1777),
    }


def content(data: int = 0, inodes: int = 0) -> ext4.Content:
    return ext4.Content(data=data, inodes=inodes)


def test_a_size_is_whole_mebibytes_and_holds_what_it_must() -> None:
    for of in [content(), content(1, 1), content(100 * MIB, 5000), content(3, 10**6)]:
        size = ext4.size_for(of, 32 * MIB)
        assert size % MIB == 0
        assert size >= of.data + ext4.inode_count(of) * ext4.INODE + ext4.JOURNAL + 32 * MIB


def test_free_space_adds_to_the_size() -> None:
    of = content(10 * MIB, 100)
    assert ext4.size_for(of, 64 * MIB) - ext4.size_for(of, 0) == 64 * MIB


@pytest.mark.parametrize("inodes", [0, 1, 1000, 10**6])
def test_there_are_more_inodes_than_files(inodes: int) -> None:
    count = ext4.inode_count(content(inodes=inodes))
    assert count >= inodes * 1.2
    assert count - inodes >= 1000  # for what the guest makes, and ext4's own


@pytest.mark.parametrize(("size", "data"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192)])
def test_a_file_takes_whole_blocks(size: int, data: int) -> None:
    found = content()
    found.add(size, 1)
    assert (found.data, found.inodes, found.newest) == (data, 1, 1)
