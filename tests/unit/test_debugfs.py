"""What debugfs answers, and reading an image from it; the engine is a stand-in that answers."""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import ImageError
from fcbuild.ext4.form import BLOCK
from fcbuild.look import debugfs
from fcbuild.look.debugfs import DebugfsReader
from tests.unit.test_ext4_inode import raw


def listings(answers: bytes, *directories: int) -> dict[int, list[tuple[int, bytes]]]:
    return dict(debugfs._listings(io.BytesIO(answers), directories))


DOTS = b"/2/040755/0/0/.//\n/2/040755/0/0/..//\n"


@pytest.mark.parametrize(
    "name",
    [
        b"plain",
        b"with space",
        b"new\nline",
        b"\n",
        b"end\n",
        b"\n\n",
        b"debugfs: ls -p <12>\n",
        b"\n12\n",
        b"\xff\xfe",
        b'quote"',
        b"n" * 255,
        b"\n" * 255,
    ],
)
def test_any_name_is_read_as_it_is(name: bytes) -> None:
    answers = b"debugfs: ls -p <2>\n" + DOTS + b"/12/100644/0/0/%s/5/\n" % name
    answers += b"/13/040755/-294967296/-1/other//\n\ndebugfs: ls -p <13>\n\n"
    assert listings(answers, 2, 13) == {2: [(12, name), (13, b"other")], 13: []}


def test_places_not_in_use_are_left_out() -> None:
    answers = b"debugfs: ls -p <11>\n" + DOTS + b"/0/000000/0/0//0/\n\n"
    assert listings(answers, 11) == {11: []}


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        b"debugfs: ls -p <3>\n\n",
        b"debugfs: ls -p <2>\n/12/100644/0/0/na",
        b"debugfs: ls -p <2>\n/12/100644/0/0/a/b/5/\n\n",
        b"debugfs: ls -p <2>\nnothing of the kind\n\n",
        b"debugfs: ls -p <2>\n/12/" + b"x\n" * 100000,
        b"debugfs: ls -p <2>\n" + b"x" * 100000,
    ],
)
def test_other_answers_are_refused(answers: bytes) -> None:
    with pytest.raises(ImageError, match="directory 2"):
        listings(answers, 2)


class Answering:
    """An engine that runs nothing, and answers as debugfs does for a few inodes and directories."""

    def __init__(self, directories: Mapping[int, list[tuple[int, bytes]]], header: str) -> None:
        self.directories = directories
        self.header = header
        self.scripts: list[str] = []

    def run(self, tag: str, argv: Sequence[str], *, mounts: Mapping[Path, str], **_: Any) -> None:
        (answers,) = (path for path, place in mounts.items() if place == "/answers:rw")
        self.scripts.append(argv[-1])
        if "imap" in argv[-1]:
            (answers / "super").write_text(self.header)
            (answers / "inodes").write_text("".join(map(self.location, range(1, 17))))
            return
        asked = re.findall(r"ls -p <(\d+)>\n", (answers / "questions").read_text())
        with (answers / "directories").open("wb") as out:
            for number in map(int, asked):
                out.write(b"debugfs: ls -p <%d>\n" % number)
                for child, name in self.directories.get(number, []):
                    out.write(b"/%d/100644/0/0/%s/0/\n" % (child, name))
                out.write(b"\n")

    @staticmethod
    def location(number: int) -> str:
        place = f"located at block 1, offset 0x{(number - 1) * 256:04x}"
        return f"debugfs: imap <{number}>\nInode {number} is part of block group 0\n\t{place}\n"


HEADER = """Filesystem state:         clean
Inode count:              16
Free blocks:              3
Free inodes:              10
Block size:               4096
Inode size:               256
"""


def reader(
    directory: Path,
    inodes: Mapping[int, bytes],
    directories: Mapping[int, list[tuple[int, bytes]]],
    header: str = HEADER,
) -> DebugfsReader:
    image = directory / "rootfs.ext4"
    table = b"".join(inodes.get(number, bytes(256)) for number in range(1, 17))
    image.write_bytes(b"boot".ljust(4096, b"\0") + table + b"content".ljust(4096, b"\0"))
    (directory / "scratch").mkdir()
    return DebugfsReader(
        image,
        Answering(directories, header),  # type: ignore[arg-type]
        "tag",
        scratch=directory / "scratch",
        log=directory / "log",
    )


DIRECTORY = raw(stat.S_IFDIR | 0o755, size=4096)


def test_a_walk_goes_down_and_puts_names_in_order(tmp_path: Path) -> None:
    link = raw(stat.S_IFLNK | 0o777, size=4, block=b"a\nb\xff")
    found = reader(
        tmp_path,
        {2: DIRECTORY, 12: DIRECTORY, 13: raw(stat.S_IFREG), 14: link},
        {2: [(13, b"a!"), (12, b"a"), (14, b"new\nline")], 12: [(13, b"b")]},
    )
    entries = list(found.walk())
    assert [entry.path for entry in entries] == ["/", "/a", "/a/b", "/a!", "/new\nline"]
    assert [entry.inode for entry in entries] == [2, 12, 13, 13, 14]
    assert entries[-1].target == "a\nb\udcff"
    assert found.space().free == 3 * 4096


def test_no_name_ever_stands_in_a_command(tmp_path: Path) -> None:
    found = reader(tmp_path, {2: DIRECTORY, 12: raw(stat.S_IFREG)}, {2: [(12, b"$(reboot)\nquit")]})
    assert [entry.path for entry in found.walk()] == ["/", "/$(reboot)\nquit"]
    scripts = found._engine.scripts  # type: ignore[attr-defined]
    assert scripts and not [script for script in scripts if "reboot" in script]
    assert "reboot" not in (tmp_path / "scratch" / "questions").read_text()


def test_directories_that_hold_each_other_have_an_end(tmp_path: Path) -> None:
    found = reader(
        tmp_path, {2: DIRECTORY, 12: DIRECTORY}, {2: [(12, b"down")], 12: [(2, b"up"), (12, b"on")]}
    )
    assert [entry.path for entry in found.walk()] == ["/", "/down", "/down/on", "/down/up"]


def test_content_and_digests(tmp_path: Path) -> None:
    block = bytes.fromhex("0af30100040000000000000000000000 01000000 02000000".replace(" ", ""))
    content = raw(stat.S_IFREG, size=7, flags=0x80000, block=block)
    found = reader(tmp_path, {2: DIRECTORY, 12: content}, {2: [(12, b"a"), (12, b"b")]})
    (a,) = (entry for entry in found.walk() if entry.path == "/a")
    assert b"".join(found.read(a)) == b"content"
    digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert found.digests() == {"/a": digest, "/b": digest}


def test_a_name_without_an_inode_is_named(tmp_path: Path) -> None:
    found = reader(tmp_path, {2: DIRECTORY}, {2: [(13, b"lost")]})
    with pytest.raises(ImageError, match="inode 13 of '/lost'"):
        list(found.walk())


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "does not tell its block size"),
        (HEADER.replace("4096", "1024"), "have not the size of our builds"),
        (HEADER.replace("256", "128"), "have not the size of our builds"),
    ],
)
def test_a_file_system_of_another_kind_is_refused(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        list(reader(tmp_path, {2: DIRECTORY}, {}, header).walk())


def test_an_answer_to_imap_that_is_none_is_refused() -> None:
    with pytest.raises(ImageError, match="answers imap"):
        list(debugfs._locations(io.BytesIO(b"debugfs: imap <1>\nsomething else\n")))
    right = Answering.location(3).encode()
    assert list(debugfs._locations(io.BytesIO(right))) == [(3, BLOCK + 512)]
