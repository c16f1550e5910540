"""What a root filesystem holds, one Entry a name, and the Reader that finds it out."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fcbuild.errors import ImageError

# Nobody's image has more; a file system of 1 TiB could, and its listing has to fit in memory.
MAX_ENTRIES = 2_000_000

Kind = Literal["directory", "file", "link", "char", "block", "fifo", "socket"]

_KINDS: Mapping[int, Kind] = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a root filesystem.

    path: absolute, `/` for the root. It and `target`, a symbolic link's, may hold any character but
    NUL; bytes that are not UTF-8 are lone surrogates, as os.fsdecode makes them.
    mode: type and permissions, as in st_mode. size: bytes. mtime: seconds since 1970.
    inode: the same for all names of one file, of which there are `links`.
    device: major and minor number. xattrs: name -> value, as getxattr(2) gives it.
    """

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    inode: int
    links: int
    target: str = ""
    device: tuple[int, int] | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return kind(self.mode)

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0] or "/"


@dataclass(frozen=True, kw_only=True)
class Space:
    """How much room a file system has and how much of it is free. size, free: bytes."""

    size: int
    free: int
    inodes: int
    free_inodes: int


class Reader(Protocol):
    """One root filesystem. What it holds is a stranger's: whatever cannot be read as it has to be
    is an ImageError, and nothing is kept in memory but the listing."""

    @property
    def name(self) -> str:
        """What reads: guestfs or debugfs."""

    def space(self) -> Space:
        """Return how full it is."""

    def walk(self) -> Iterator[Entry]:
        """Yield every entry: a directory before what is in it, names of one directory in order."""

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of a file in pieces of at most 1 MiB."""

    def digests(self) -> Mapping[str, str]:
        """Return the sha256 of every file's content, by path."""


def kind(mode: int) -> Kind:
    """Return the type that a mode names. Raises ImageError."""
    try:
        return _KINDS[stat.S_IFMT(mode)]
    except KeyError:
        raise ImageError(f"mode {mode:o} names no type of file") from None


def order(path: str) -> str:
    """Return a key that sorts paths as a walk meets them: `/a/b` before `/a!`."""
    return path.replace("/", "\0")
