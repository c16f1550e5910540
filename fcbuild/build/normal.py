"""What two builds of one Dockerfile never have alike, and is made alike where that is harmless.

A RUN step gives its files the time of the day, and package managers write down what they did and
when. So the engine's files are settled on their way into a root filesystem: no time is newer than
the image's epoch (https://reproducible-builds.org/specs/source-date-epoch/: cut, never raised), and
RULES say what else is done. Everything else stays as the Dockerfile made it; when it differs each
time, `doit reproduce` names it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Literal

from fcbuild.build.tree import Node, Tree, printable
from fcbuild.errors import BuildError

_DAY = 86400  # seconds
_MAX_SHADOW = 1 << 20  # bytes: a user database that is larger is left as it is

# A maximum of so many days and more is none: isexpired(3) of shadow-utils.
_NEVER_EXPIRES = 10_000

# A .pyc begins with its magic number, flags, and the modification time and size of its source, 4
# bytes each: PEP 552. Its magic numbers began with 3390; before, there were no flags.
_PYC_HEADER = 16
_PYC_TIME = 8
_PYC_MAGICS = range(3390, 10_000)


@dataclass(frozen=True)
class Rule:
    """What is done to the files of these names (`*`: any part of a name), and why it is harmless.

    empty: they lose their content. drop: they are left out. day: passwords' days are cut to the
    epoch's. source: the source's time in it is the one that the source has now.
    """

    files: tuple[str, ...]
    does: Literal["empty", "drop", "day", "source"]
    why: str

    @cached_property
    def _names(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_pattern, self.files)), re.DOTALL)

    def covers(self, name: str) -> bool:
        return self._names.fullmatch(f"/{name}") is not None


RULES = (
    Rule(
        (
            "/var/log/apt/*",
            "/var/log/dpkg.log",
            "/var/log/alternatives.log",
            "/var/log/bootstrap.log",
            "/var/log/fontconfig.log",
            "/var/log/apk.log",
            "/var/log/dnf*.log",
            "/var/log/hawkey.log",
            "/var/log/yum.log",
            "/var/log/pacman.log",
        ),
        "empty",
        "a package manager's diary, for people: what it did, and when",
    ),
    Rule(
        ("/var/cache/apt/pkgcache.bin", "/var/cache/apt/srcpkgcache.bin"),
        "drop",
        "apt makes it anew when it is missing, as after `apt-get clean`",
    ),
    Rule(
        ("/var/cache/ldconfig/aux-cache",),
        "drop",
        "ldconfig's notes to itself, with times and inodes that the guest's files have not",
    ),
    Rule(
        ("/etc/shadow", "/etc/shadow-"),
        "day",
        "the day of a password's last change counts only where passwords expire: such accounts "
        "stay as they are",
    ),
    Rule(
        ("*.pyc",),
        "source",
        "else Python would take it for older than its source, and compile at each start",
    ),
)


@dataclass
class Settled:
    """Settles the files of one image, as they come. epoch: seconds since 1970; None cuts nothing
    and settles nothing."""

    epoch: int | None
    _touched: set[str] = field(default_factory=set)
    _times: dict[str, int] = field(default_factory=dict)  # of Python's files, as they came

    def time(self, name: str, mtime: int) -> int:
        """Return the time that a file gets."""
        if self.epoch is None:
            return mtime
        if name.endswith((".py", ".pyc")):
            self._times[name] = mtime
        return min(mtime, self.epoch)

    def content(self, name: str, size: int, data: IO[bytes]) -> tuple[int, IO[bytes]] | None:
        """Return the size and the bytes that a file gets, or None for one that is left out."""
        does = next((rule.does for rule in RULES if rule.covers(name)), None)
        if self.epoch is None or does is None:
            return size, data
        if does in ("empty", "drop"):
            self._touched.add(name)
            return (0, io.BytesIO()) if does == "empty" else None
        if does == "day" and size <= _MAX_SHADOW:
            text = cut_days(data.read(), self.epoch // _DAY)
            return len(text), io.BytesIO(text)
        return size, data

    def link(self, name: str, target: str) -> None:
        """Raise BuildError for a second name of a file that is emptied or left out: who gives a
        package manager's log a name of his own wants to keep it."""
        if target in self._touched:
            raise BuildError(
                f"{printable(f'/{name}')} is a hard link to {printable(f'/{target}')}, which "
                "is not kept in a root filesystem: it is different at each build",
                hint="make it a copy in the Dockerfile",
            )

    def late(self, tree: Tree) -> Iterator[tuple[Node, int, bytes]]:
        """Yield what is to be written over, once all files are known: a file's node, where in it
        (an offset in bytes), and the bytes."""
        for name, written in self._times.items():
            node = tree.nodes.get(name)
            if name.endswith(".pyc") and node and node.kind == "file":
                header = tree.data(node, 0, _PYC_HEADER)
                source = tree.resolve(f"/{source_of(name)}")
                time = self._times.get(source or "")
                size = tree.nodes[source].size if source and time is not None else 0
                new = self._recorded(header, written, time, size)
                if new is not None:
                    yield node, _PYC_TIME, new.to_bytes(4, "little")

    def _recorded(self, header: bytes, written: int, source: int | None, size: int) -> int | None:
        """Return the source's time for a .pyc to record, or None to leave what it has.

        written: when the .pyc was; source, size: of its source, None for none. The engine rounds
        times to the nearest second and Python down, so a source may seem a second newer than it is
        said to be. One that Python would not have taken before must not become valid by the
        cutting of times: it records the time 0, which is nobody's.
        """
        assert self.epoch is not None
        if len(header) < _PYC_HEADER or header[2:4] != b"\r\n":
            return None
        if int.from_bytes(header[:2], "little") not in _PYC_MAGICS or any(header[4:8]):
            return None  # flags: it records a hash, or what we do not know
        recorded = int.from_bytes(header[_PYC_TIME:12], "little")
        if source is not None:
            now = min(source, self.epoch)
            matches = source - recorded in (0, 1) and source <= written
            if matches and size == int.from_bytes(header[12:16], "little"):
                return now if now != recorded and now >= 0 else None
            if recorded == now:
                return 0
        return 0 if recorded > self.epoch else None


def source_of(pyc: str) -> str:
    """Return the name of the source that a .pyc is looked up for (PEP 3147)."""
    directory, _, file = pyc.rpartition("/")
    if directory.rpartition("/")[2] == "__pycache__":
        directory = directory.rpartition("/")[0]
        file = file.partition(".")[0] + ".pyc"
    return f"{directory}/{file[:-1]}".lstrip("/")


def cut_days(shadow: bytes, day: int) -> bytes:
    """Return the text of shadow(5) with no password changed later than `day`, in days since 1970.

    An account whose password expires, or may not be changed for some days, keeps its day: there
    it decides who may log in.
    """
    lines = shadow.split(b"\n")
    for number, line in enumerate(lines):
        fields = line.split(b":")
        if len(fields) < 5 or not re.fullmatch(rb"[0-9]{1,9}", fields[2]):
            continue
        at_least, at_most = fields[3], fields[4]
        ages = at_least not in (b"", b"0") or not (
            at_most == b""
            or (re.fullmatch(rb"[0-9]{1,9}", at_most) and int(at_most) >= _NEVER_EXPIRES)
        )
        if int(fields[2]) > day and not ages:
            fields[2] = b"%d" % day
            lines[number] = b":".join(fields)
    return b"\n".join(lines)


def _pattern(file: str) -> str:
    # A star at the beginning stands for directories too.
    start, rest = (".*", file[1:]) if file.startswith("*") else ("", file)
    return start + re.escape(rest).replace(r"\*", "[^/]*")
