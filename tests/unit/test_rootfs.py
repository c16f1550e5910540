"""Root filesystems: what is added to the image's files, and the sizes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from fcbuild.build import rootfs
from fcbuild.build.engine import Engine
from fcbuild.build.files import Files
from fcbuild.build.tree import Node, Tree
from fcbuild.errors import BuildError, CommandFailed
from fcbuild.store import Stage

Furnished = Callable[..., dict[str, tuple[str, int]]]

IDENTITY = rootfs._identity("seed", "")


@pytest.fixture
def furnished(tmp_path: Path) -> Iterator[Furnished]:
    """Furnish an image of these directories (None), files (bytes) and links (text); return what
    was added, with its kind and mode."""
    with Files(tmp_path / "rootfs.ext4", IDENTITY) as files:

        def furnished(
            image: dict[str, bytes | str | None], *directories: str
        ) -> dict[str, tuple[str, int]]:
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as tar:
                for name, data in image.items():
                    entry = tarfile.TarInfo(name)
                    if isinstance(data, bytes):
                        entry.size = len(data)
                    elif data is None:
                        entry.type = tarfile.DIRTYPE
                    else:
                        entry.type, entry.linkname = tarfile.SYMTYPE, data
                    tar.addfile(entry, io.BytesIO(data) if isinstance(data, bytes) else None)
            files.copy(io.BytesIO(out.getvalue()))
            before = set(files.tree.nodes)
            rootfs.furnish(files, directories)
            return {
                name: (node.kind, node.mode)
                for name, node in files.tree.nodes.items()
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


def export(tmp_path: Path, engine: FakeEngine) -> Files:
    with (tmp_path / "log").open("wb") as log, Files(tmp_path / "x", IDENTITY) as files:
        stage = Stage(tmp_path, tmp_path, log, tmp_path / "log")
        rootfs._export(cast(Engine, engine), "fcbuild/x:1", "linux/amd64", files, stage)
    return files


def test_the_engines_files_are_taken_while_they_arrive(tmp_path: Path) -> None:
    # More than a pipe holds.
    files = export(tmp_path, FakeEngine(a_tar("a", "b", size=1 << 20)))
    assert files.tree.nodes["b"].size == 1 << 20


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
    with (tmp_path / "log").open("wb") as log, Files(full, IDENTITY) as files:
        stage = Stage(tmp_path, tmp_path, log, tmp_path / "log")
        engine = FakeEngine(a_tar("a", size=1 << 20))
        with pytest.raises(BuildError, match=r"/dev/full cannot be written: No space left"):
            rootfs._export(cast(Engine, engine), "fcbuild/x:1", "linux/amd64", files, stage)
            files.finish(None, 0)
