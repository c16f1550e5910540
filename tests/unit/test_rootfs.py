"""Root filesystems: what is added to the image's files, and the sizes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from fcbuild.build import ext4, rootfs
from fcbuild.build.archive import Archive
from fcbuild.build.engine import Engine
from fcbuild.build.tree import Node, Tree
from fcbuild.errors import BuildError, CommandFailed
from fcbuild.store import Stage
from fcbuild.tables import MIB

Furnished = Callable[..., dict[str, tuple[str, int]]]


@pytest.fixture
def furnished(tmp_path: Path) -> Iterator[Furnished]:
    """Furnish an image of these directories (None), files (bytes) and links (text); return what
    was added, with its kind and mode."""
    with Archive(tmp_path / "rootfs.tar") as archive:

        def furnished(
            files: dict[str, bytes | str | None], *directories: str
        ) -> dict[str, tuple[str, int]]:
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as tar:
                for name, data in files.items():
                    entry = tarfile.TarInfo(name)
                    if isinstance(data, bytes):
                        entry.size = len(data)
                    elif data is None:
                        entry.type = tarfile.DIRTYPE
                    else:
                        entry.type, entry.linkname = tarfile.SYMTYPE, data
                    tar.addfile(entry, io.BytesIO(data) if isinstance(data, bytes) else None)
            archive.copy(io.BytesIO(out.getvalue()))
            before = set(archive.tree.nodes)
            rootfs.furnish(archive, directories)
            return {
                name: (node.kind, node.mode)
                for name, node in archive.tree.nodes.items()
                if name not in before
            }

        yield furnished


TOP: dict[str, bytes | str | None] = dict.fromkeys(("dev", "proc", "run", "sys", "tmp", "etc"))
ADDED = {
    **{f"etc/{name}": ("file", 0o644) for name in ("hostname", "hosts", "resolv.conf")},
    "etc/mtab": ("link", 0o777),
}


def test_an_empty_image_gets_all_of_it(furnished: Furnished) -> None:
    assert furnished({}) == {
        **{name: ("directory", 0o755) for name in ("dev", "etc", "proc", "run", "sys")},
        "tmp": ("directory", 0o1777),
        **ADDED,
    }


def test_what_is_there_is_left_alone(furnished: Furnished) -> None:
    there: dict[str, bytes | str | None] = {
        **TOP,
        "etc/hostname": b"mine",
        "etc/hosts": "/nowhere/at/all",
        "etc/resolv.conf": None,
        "etc/mtab": b"",
        "data": None,
    }
    assert furnished(there, "/data") == {}


def test_links_of_the_image_are_followed(furnished: Furnished) -> None:
    there: dict[str, bytes | str | None] = {
        "usr": None,
        "usr/etc": None,
        "etc": "usr/etc",
        "run": "/var/run",
        "var": None,
        "tmp": None,
        "data": "../usr/./share",
    }
    assert furnished(there, "/data/a/b", "/etc/vol", "/") == {
        "dev": ("directory", 0o755),
        "proc": ("directory", 0o755),
        "var/run": ("directory", 0o755),
        "sys": ("directory", 0o755),
        "usr/share": ("directory", 0o755),
        "usr/share/a": ("directory", 0o755),
        "usr/share/a/b": ("directory", 0o755),
        "usr/etc/vol": ("directory", 0o755),
        **{f"usr/{name}": added for name, added in ADDED.items()},
    }


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"proc": b""}, "/proc cannot be a directory: the image has a file /proc"),
        ({"etc": b""}, "/etc cannot be a directory"),
        ({"tmp": "tmp"}, "/tmp cannot be a directory: its links lead nowhere"),
        ({"a": b""}, "/a/b cannot be a directory: the image has a file /a"),
    ],
)
def test_a_file_in_the_way_is_named(
    furnished: Furnished, files: dict[str, bytes | str | None], said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        furnished(files, "/a/b")


def test_each_writable_directory_is_named_once_and_none_within_another() -> None:
    tree = Tree(lambda *_: b"")
    tree.nodes["var/run"] = Node("link", 0o777, "../run")
    tree.nodes["link"] = Node("link", 0o777, "/data")
    tree.nodes["loop"] = Node("link", 0o777, "loop")
    given = ["/z", "/data/x", "/data", "/link", "/data-x", "/var/run", "/run/y", "/tmp", "/loop"]
    assert rootfs._writable(tree, given) == ("/data", "/data-x", "/z")


class FakeEngine:
    """An engine that exports these bytes, and then fails or not."""

    def __init__(self, tar: bytes, *, fails: bool = False) -> None:
        self._tar = tar
        self._fails = fails

    def export(self, tag: str, to: IO[bytes], **_: object) -> None:
        broken = False
        try:
            to.write(self._tar)
            to.flush()
        except BrokenPipeError:
            broken = True
        if broken or self._fails:
            raise CommandFailed(f"exporting {tag}", argv=["docker"], status=1)


def a_tar(*names: str, size: int = 1) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(bytes(size)))
    return out.getvalue()


def export(tmp_path: Path, engine: FakeEngine) -> Archive:
    with (tmp_path / "log").open("wb") as log, Archive(tmp_path / "tar") as archive:
        stage = Stage(tmp_path, tmp_path, log, tmp_path / "log")
        rootfs._export(cast(Engine, engine), "fcbuild/x:1", archive, stage)
    return archive


def test_the_engines_files_are_taken_while_they_arrive(tmp_path: Path) -> None:
    # More than a pipe holds.
    archive = export(tmp_path, FakeEngine(a_tar("a", "b", size=1 << 20)))
    assert archive.tree.nodes["b"].size == 1 << 20


def test_an_engine_that_fails_is_what_is_told(tmp_path: Path) -> None:
    for tar in (b"", a_tar("a")[:600], a_tar("a")):
        with pytest.raises(CommandFailed, match="exporting fcbuild/x:1"):
            export(tmp_path, FakeEngine(tar, fails=True))


def test_what_we_refuse_is_told_and_not_the_pipe_that_broke(tmp_path: Path) -> None:
    for rest in (("x",), [f"x{number}" for number in range(1000)]):
        with pytest.raises(BuildError, match=r"the image has a file /\.fcbuild"):
            export(tmp_path, FakeEngine(a_tar(".fcbuild", *rest, size=4096)))


@pytest.mark.parametrize("tar", [b"", b"no tar" * 1000, a_tar("a", size=5000)[:2000]])
def test_what_is_no_tar_is_refused(tmp_path: Path, tar: bytes) -> None:
    with pytest.raises(BuildError, match="the engine's tar of fcbuild/x:1 cannot be read"):
        export(tmp_path, FakeEngine(tar))


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with (tmp_path / "log").open("wb") as log, Archive(full) as archive:
        stage = Stage(tmp_path, tmp_path, log, tmp_path / "log")
        engine = FakeEngine(a_tar("a", size=1 << 20))
        with pytest.raises(BuildError, match=r"/dev/full cannot be written: No space left"):
            rootfs._export(cast(Engine, engine), "fcbuild/x:1", archive, stage)
            archive.finish()


def test_a_directory_that_takes_long_is_found() -> None:
    tree = Tree(lambda *_: b"")
    for number in range(20_001):
        tree.nodes[f"many/{number}"] = Node("file", 0o644)
        tree.nodes[f"few{number % 2}/{number}"] = Node("file", 0o644)
    assert rootfs._crowded(tree) == ["many"]


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


def test_names_take_room_too() -> None:
    few, many = content(inodes=100_000), content(inodes=100_000)
    for number in range(100_000):
        many.enter(f"directory/{number:0200}")
    assert many.names == 100_000 * 208
    assert ext4.size_for(many, 0) - ext4.size_for(few, 0) > 20 * MIB
