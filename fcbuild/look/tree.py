"""The listing of one root filesystem, by path, and finding one's way in it."""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Iterator
from functools import cached_property

from fcbuild.errors import ImageError, did_you_mean
from fcbuild.look.entry import Entry, Reader

MAX_TEXT = 64 << 20  # bytes of a database of packages, of a user database: more is none
_MAX_LINKS = 40  # as Linux has it


class Tree:
    """What a reader found, all of it."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.entries = {entry.path: entry for entry in reader.walk()}

    def find(self, path: str) -> Entry:
        """Return what a path leads to, links followed as in a guest that has this root.

        Raises ImageError: names the last directory on the way, and what is nearly so called.
        """
        at, links = "/", 0
        steps = deque(path.split("/"))
        while steps:
            step = steps.popleft()
            if step in ("", "."):
                continue
            if self.entries[at].kind != "directory":
                raise ImageError(f"{path}: {at} is not a directory")
            child = posixpath.dirname(at) if step == ".." else posixpath.join(at, step)
            entry = self.entries.get(child)
            if entry is None:
                known = [sibling.name for sibling in self.children(at)]
                raise ImageError(
                    f"{path}: not in the image: {at} has no {step!r}{did_you_mean(step, known)}",
                    hint=f"path={at} lists what is there",
                )
            if entry.kind != "link":
                at = child
                continue
            links += 1
            if links > _MAX_LINKS:
                raise ImageError(f"{path}: more than {_MAX_LINKS} links on the way, at {child}")
            at = "/" if entry.target.startswith("/") else at
            steps.extendleft(reversed(entry.target.split("/")))
        return self.entries[at]

    def children(self, path: str) -> Iterator[Entry]:
        """Yield what is in a directory."""
        for entry in self.entries.values():
            if entry.path != "/" and entry.parent == path:
                yield entry

    def content(self, path: str) -> bytes | None:
        """Return the content of a file that a summary is made from, or None where there is none.

        Raises ImageError for one of an absurd size.
        """
        try:
            entry = self.find(path)
        except ImageError:
            return None
        if entry.kind != "file":
            return None
        if entry.size > MAX_TEXT:
            raise ImageError(f"{path} has {entry.size} bytes, too many to make sense of")
        return b"".join(self.reader.read(entry))

    def text(self, path: str) -> str:
        """Return the same as text, "" where there is none."""
        return (self.content(path) or b"").decode("utf-8", "surrogateescape")

    @cached_property
    def users(self) -> dict[int, str]:
        """The names of the image's own users, by uid."""
        return _names(self.text("/etc/passwd"))

    @cached_property
    def groups(self) -> dict[int, str]:
        """The names of the image's own groups, by gid."""
        return _names(self.text("/etc/group"))


def _names(text: str) -> dict[int, str]:
    """Read passwd(5) or group(5): in both, the first field is the name and the third the number."""
    names: dict[int, str] = {}
    for line in text.split("\n"):
        name, _, rest = line.partition(":")
        number = re.match(r"[^:]*:([0-9]{1,10}):", rest)
        if name and number:
            names.setdefault(int(number[1]), name)
    return names
