"""Read an ext4 image with debugfs, from the toolchain image.

debugfs is asked for what leaves no room for doubt: where the inodes are, by number, and what is in
directories, in its listing for programs, whose fields end with a slash, which no name can hold. So
no name of a stranger's ever stands in a command, and none can look like an answer. Inodes and the
bytes of files come from the image itself, from where they are said to be.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import IO

from fcbuild.build.engine import Engine
from fcbuild.errors import ImageError
from fcbuild.ext4 import form, inode
from fcbuild.ext4.inode import Inode
from fcbuild.look.entry import MAX_ENTRIES, Entry, Space, order

TIMEOUT_S = 600.0

_ROOT = 2  # the number of the root directory's inode
_MAX_LINE = 4096
_NAME = "utf-8", "surrogateescape"

# Owners come as signed numbers.
_LISTED = re.compile(rb"/(\d+)/[0-7]{6}/-?\d+/-?\d+/([^/]*)/\d*/\n")
_LOCATED = re.compile(
    rb"debugfs: imap <(\d+)>\nInode \1 is part of block group \d+\n"
    rb"\tlocated at block (\d+), offset 0x([0-9a-f]+)\n"
)

# Every inode there is: fewer questions than walking down the directories, one level at a time.
_INODES = """
debugfs -R 'show_super_stats -h' /image >super
count=$(sed -n 's/^Inode count: *//p' super)
seq -f 'imap <%.0f>' "$count" >questions
debugfs -f questions /image >inodes
"""
_DIRECTORIES = "debugfs -f questions /image >directories"


class DebugfsReader:
    """Reads one image. scratch: an empty directory of ours; toolchain: the image's tag."""

    name = "debugfs"

    def __init__(
        self, image: Path, engine: Engine, toolchain: str, *, scratch: Path, log: Path
    ) -> None:
        self._image = image.resolve()
        self._engine = engine
        self._toolchain = toolchain
        self._scratch = scratch
        self._log = log

    def space(self) -> Space:
        _ = self._inodes  # debugfs tells both at once
        header = (self._scratch / "super").read_text("utf-8", "replace")

        def number(label: str) -> int:
            found = re.search(rf"^{label}:\s+(\d+)$", header, re.MULTILINE)
            if found is None:
                raise ImageError(f"{self._image}: debugfs does not tell its {label.lower()}")
            return int(found[1])

        if number("Block size") != form.BLOCK or number("Inode size") != form.INODE:
            raise ImageError(f"{self._image}: its blocks or inodes have not the size of our builds")
        return Space(
            size=self._image.stat().st_size,
            free=number("Free blocks") * form.BLOCK,
            inodes=number("Inode count"),
            free_inodes=number("Free inodes"),
        )

    def walk(self) -> Iterator[Entry]:
        yield from self._entries

    def read(self, entry: Entry) -> Iterator[bytes]:
        with self._image.open("rb") as disk:
            yield from inode.content(self._inodes[entry.inode], disk)

    def digests(self) -> Mapping[str, str]:
        known: dict[int, str] = {}  # the names of one file are digested once
        found = {}
        for entry in self._entries:
            if entry.kind == "file":
                if entry.inode not in known:
                    digest = hashlib.sha256()
                    for piece in self.read(entry):
                        digest.update(piece)
                    known[entry.inode] = digest.hexdigest()
                found[entry.path] = known[entry.inode]
        return found

    @cached_property
    def _entries(self) -> list[Entry]:
        self.space()  # raises for a file system that is not as we know it
        entries: list[Entry] = []
        with self._image.open("rb") as disk:
            for path, number in self._names():
                if len(entries) == MAX_ENTRIES:
                    raise ImageError(f"{self._image} has more than {MAX_ENTRIES} entries")
                entries.append(self._entry(path, number, disk))
        return sorted(entries, key=lambda entry: order(entry.path))

    def _entry(self, path: str, number: int, disk: IO[bytes]) -> Entry:
        try:
            found = self._inodes[number]
            target = b""
            if stat.S_ISLNK(found.mode):
                target = found.short_target or b"".join(inode.content(found, disk))
            return Entry(
                path=path,
                mode=found.mode,
                uid=found.uid,
                gid=found.gid,
                size=found.size,
                mtime=found.mtime,
                inode=number,
                links=found.links,
                target=target.decode(*_NAME),
                device=found.device,
                xattrs=found.xattrs(partial(inode.read_block, disk)),
            )
        except (KeyError, ImageError) as error:
            raise ImageError(f"{self._image}: inode {number} of {path!r}: {error}") from error

    def _names(self) -> Iterator[tuple[str, int]]:
        """Yield every path with its inode's number, from the directories' listings."""
        directories = [n for n, found in self._inodes.items() if stat.S_ISDIR(found.mode)]
        (self._scratch / "questions").write_text("".join(f"ls -p <{n}>\n" for n in directories))
        self._run(_DIRECTORIES)
        with (self._scratch / "directories").open("rb") as answers:
            listings = dict(_listings(answers, directories))
        yield "/", _ROOT
        pending = [("", _ROOT)]
        while pending:
            parent, number = pending.pop()
            # Gone with the first name that leads there: a loop of directories has an end.
            for child, name in listings.pop(number, []):
                path = f"{parent}/{name.decode(*_NAME)}"
                yield path, child
                if child in listings:
                    pending.append((path, child))

    @cached_property
    def _inodes(self) -> dict[int, Inode]:
        """The inodes that are in use, by number."""
        self._run(_INODES)
        inodes = {}
        with (self._scratch / "inodes").open("rb") as answers, self._image.open("rb") as disk:
            for number, offset in _locations(answers):
                found = inode.decode(inode.read_at(disk, offset, form.INODE))
                if found.links:
                    inodes[number] = found
        return inodes

    def _run(self, script: str) -> None:
        with self._log.open("wb") as log:
            self._engine.run(
                self._toolchain,
                ["sh", "-euc", f"cd /answers\n{script}"],
                what=f"reading {self._image.name} with debugfs",
                mounts={self._image: "/image:ro", self._scratch: "/answers:rw"},
                log=log,
                log_path=self._log,
                timeout_s=TIMEOUT_S,
            )


def _locations(answers: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield each inode's number and its offset on the disk, from what debugfs answers to imap.

    Raises ImageError for an answer that is none.
    """
    for asked in answers:
        found = _LOCATED.fullmatch(asked + answers.readline() + answers.readline())
        if found is None:
            raise ImageError(f"debugfs answers imap with {asked!r}")
        yield int(found[1]), int(found[2]) * form.BLOCK + int(found[3], 16)


def _listings(
    answers: IO[bytes], directories: Sequence[int]
) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
    """Yield each directory's inode with its names and their inodes, `.` and `..` left out.

    From what debugfs answers to `ls -p`: entries, each `/INODE/MODE/UID/GID/NAME/SIZE/` and a
    newline, then an empty line. A name may hold newlines itself. Raises ImageError.
    """
    line = b""
    for number in directories:
        listed: list[tuple[int, bytes]] = []
        if answers.readline(_MAX_LINE) != b"debugfs: ls -p <%d>\n" % number:
            raise ImageError(f"debugfs does not answer for the directory {number}")
        while (line := answers.readline(_MAX_LINE)) != b"\n":
            while not (found := _LISTED.fullmatch(line)):
                more = answers.readline(_MAX_LINE)
                if not more or len(line) > _MAX_LINE:
                    raise ImageError(f"debugfs lists in the directory {number}: {line[:80]!r}")
                line += more
            if found[1] != b"0" and found[2] not in (b".", b".."):  # 0: a place not in use
                listed.append((int(found[1]), found[2]))
        yield number, listed
