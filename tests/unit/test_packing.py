"""Root filesystems: what is added to the image's files, and what is told where packing fails."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from fcbuild import spec
from fcbuild.build import packing
from fcbuild.build.engine import ImageConfig
from fcbuild.build.files import Files
from fcbuild.build.packing import Order, Packed
from fcbuild.build.tree import Node, Tree
from fcbuild.errors import BuildError, CommandFailed
from fcbuild.store import Stage

Furnished = Callable[..., dict[str, tuple[str, int]]]

IDENTITY = packing.identity("seed", "")


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
            packing.furnish(files, directories)
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
    assert packing._writable(tree, given) == ("/data", "/data-x", "/z")


class FakeEngine:
    """An engine that exports these bytes, and then fails or not."""

    def __init__(self, tar: bytes, *, fails: bool = False) -> None:
        self._tar = tar
        self._fails = fails

    def export(self, to: IO[bytes]) -> None:
        broken = False
        try:
            to.write(self._tar)
            to.flush()
        except BrokenPipeError:
            broken = True
        if broken or self._fails:
            raise CommandFailed("exporting x", argv=["docker"], status=1)


PROGRAM = b"#!/a\n"  # its own interpreter: in every tar, and good enough for who only looks


def a_tar(*names: str, size: int = len(PROGRAM)) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = size, 0o755
            tar.addfile(entry, io.BytesIO(PROGRAM.ljust(size, b"\0")))
    return out.getvalue()


def packed(directory: Path, engine: FakeEngine, *, argv: str = "/a", init: str = "init") -> Packed:
    image = directory / "images" / "x"
    image.mkdir(parents=True, exist_ok=True)
    (image / "image.toml").write_text('[rootfs]\nfree = "1MiB"\n')
    (image / "Dockerfile").write_text(f"FROM y\nCMD {argv}\n")
    (directory / "init").write_bytes(b"PID 1")
    order = Order(
        seed="x",
        spec=spec.load(directory).images["x"],
        says=ImageConfig(entrypoint=(), cmd=(argv,), env=(), workdir="", user="", stop_signal=""),
        init=directory / init,
        epoch=0,
        to=directory,
    )
    log_path = directory / "log"
    with log_path.open("wb") as log:
        stage = Stage(directory, directory, log, log_path)
        return packing.packed(order, "fcbuild/x:1", engine.export, stage)


def test_the_engines_files_are_taken_while_they_arrive(tmp_path: Path) -> None:
    # More than a pipe holds.
    facts, warnings = packed(tmp_path, FakeEngine(a_tar("a", "b", size=1 << 20)))
    assert facts["argv"] == ["/a"]
    assert facts["size"] == (tmp_path / "rootfs.ext4").stat().st_size > 2 << 20
    assert not warnings


def test_the_bytes_follow_from_the_image(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "another"]
    for root in roots:
        packed(root, FakeEngine(a_tar("a")))
    one, another = ((root / "rootfs.ext4").read_bytes() for root in roots)
    assert one == another


def test_an_engine_that_fails_is_what_is_told(tmp_path: Path) -> None:
    for tar in (b"", a_tar("a")[:600], a_tar("a")):
        with pytest.raises(CommandFailed, match="exporting x"):
            packed(tmp_path, FakeEngine(tar, fails=True))


def test_what_we_refuse_is_told_and_not_the_pipe_that_broke(tmp_path: Path) -> None:
    for rest in (("x",), [f"x{number}" for number in range(1000)]):
        with pytest.raises(BuildError, match=r"the image has a file /\.fcbuild") as refused:
            packed(tmp_path, FakeEngine(a_tar(".fcbuild", *rest, size=4096)))
        assert refused.value.hint, "errors arrive whole"


def test_what_is_wrong_with_the_image_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="images/x/Dockerfile:2: /b: not found in the image"):
        packed(tmp_path, FakeEngine(a_tar("a")), argv="/b")


@pytest.mark.parametrize("tar", [b"", b"no tar" * 1000, a_tar("a", size=5000)[:2000]])
def test_what_is_no_tar_is_refused(tmp_path: Path, tar: bytes) -> None:
    with pytest.raises(BuildError, match="the engine's tar of fcbuild/x:1 cannot be read"):
        packed(tmp_path, FakeEngine(tar))


def test_a_fault_of_ours_keeps_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as fault:
        packed(tmp_path, FakeEngine(a_tar("a")), init="nowhere")
    assert "in pack\n" in "".join(fault.value.__notes__)


def test_a_process_that_is_killed_is_no_result(tmp_path: Path) -> None:
    class Killer(FakeEngine):
        def export(self, to: IO[bytes]) -> None:
            mine = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
            for child in Path(mine).read_text().split():
                if packing.__name__ in Path("/proc", child, "cmdline").read_text():
                    os.kill(int(child), signal.SIGKILL)
            super().export(to)

    with pytest.raises(BuildError, match="packing fcbuild/x:1 did not come to its end") as refused:
        packed(tmp_path, Killer(a_tar("a", size=1 << 20)))
    assert str(tmp_path / "log") in str(refused.value.hint)


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    with Files(Path("/dev/full"), IDENTITY) as files:
        files.copy(io.BytesIO(a_tar("a", size=1 << 20)))
        with pytest.raises(BuildError, match=r"/dev/full cannot be written: No space left"):
            files.finish(None, 0)
