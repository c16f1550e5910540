"""The files of a root filesystem, by name: where a path leads to, symbolic links and all.

Nothing of this machine is asked: an image's links lead to the image's own files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from fcbuild.errors import BuildError

Kind = Literal["file", "directory", "link", "special"]

MAX_LINKS = 40  # that the kernel follows on one path: path_resolution(7)

# Where PID 1 mounts something: what the image has there is not what the program sees.
MOUNTED = ("proc", "sys", "dev")


@dataclass(frozen=True, slots=True)
class Node:
    """A file of any kind. mode: permission bits.

    target: where a symbolic link leads to. inode: of the file; size: of its content, in bytes.
    """

    kind: Kind
    mode: int
    target: str = ""
    inode: int = 0
    size: int = 0


@dataclass
class Tree:
    """All files of an image; their names are without the leading slash, "" is the root.

    data: gives a file's bytes, at most as many as asked for, from an offset on.
    """

    data: Callable[[Node, int, int], bytes]
    nodes: dict[str, Node] = field(default_factory=lambda: {"": Node("directory", 0o755)})

    def resolve(self, path: str, base: str = "/") -> str | None:
        """Return the name behind a path, no link left in it, or None for links without an end.

        base: what a relative path starts from. The name may be one that the image does not have.
        """
        at: list[str] = []
        todo = posixpath.join("/", base, path).split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del at[-1:]
            elif part not in ("", "."):
                node = self.nodes.get("/".join([*at, part]))
                if node is None or node.kind != "link":
                    at.append(part)
                    continue
                links += 1
                if links > MAX_LINKS:
                    return None
                if node.target.startswith("/"):
                    at = []
                todo += node.target.split("/")[::-1]
        return "/".join(at)

    def find(self, path: str, base: str = "/") -> Node | None:
        """Return what is behind a path, or None when the image has nothing there."""
        name = self.resolve(path, base)
        return None if name is None else self.nodes.get(name)

    def text(self, path: str, limit: int) -> str:
        """Return the text of a file, "" where there is none or it has more than `limit` bytes."""
        node = self.find(path)
        if node is None or node.kind != "file" or node.size > limit:
            return ""
        return self.data(node, 0, node.size).decode("utf-8", "replace")

    def missing(self, path: str) -> Iterator[str]:
        """Yield the directories to make so that `path` is one, outermost first, links followed.

        Raises BuildError where something else is in the way.
        """
        name = self.resolve(path)
        if name is None:
            raise BuildError(f"{path} cannot be a directory: its links lead nowhere")
        at = ""
        for part in name.split("/"):
            at = posixpath.join(at, part)
            node = self.nodes.get(at)
            if node is None:
                yield at
            elif node.kind != "directory":
                raise BuildError(
                    f"{path} cannot be a directory: the image has a file /{at}",
                    hint="remove it in the Dockerfile",
                )


def printable(text: str) -> str:
    """Return a name of the image's as it can be shown: it may hold anything, a terminal's commands
    and bytes that are no text among it."""
    return text if text.isprintable() else ascii(text)[1:-1]
