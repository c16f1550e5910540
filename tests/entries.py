"""Root filesystems made up for tests: entries, and a reader of them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from fcbuild.look.entry import Entry, Space, order
from fcbuild.look.tree import Tree


def directory(path: str, **fields: Any) -> Entry:
    known = {"mode": stat.S_IFDIR | 0o755, "size": 4096, "links": 2}
    return entry(path, **{**known, **fields})


def file(path: str, **fields: Any) -> Entry:
    return entry(path, **{"mode": stat.S_IFREG | 0o644, **fields})


def symlink(path: str, target: str) -> Entry:
    return entry(path, mode=stat.S_IFLNK | 0o777, target=target, size=len(target))


def entry(path: str, **fields: Any) -> Entry:
    known = {"uid": 0, "gid": 0, "size": 0, "mtime": 0, "inode": hash(path) % 10000, "links": 1}
    return Entry(**{"path": path, **known, **fields})


class MadeUp:
    """A reader of entries, and of files' contents, in pieces, by path."""

    name = "made-up"

    def __init__(self, entries: list[Entry], contents: Mapping[str, list[bytes]]) -> None:
        self.entries = entries
        self.contents = contents

    def space(self) -> Space:
        return Space(size=300 << 20, free=44 << 20, inodes=9000, free_inodes=2000)

    def walk(self) -> Iterator[Entry]:
        yield from sorted(self.entries, key=lambda entry: order(entry.path))

    def read(self, entry: Entry) -> Iterator[bytes]:
        yield from self.contents[entry.path]

    def digests(self) -> Mapping[str, str]:
        return {
            entry.path: hashlib.sha256(b"".join(self.contents.get(entry.path, []))).hexdigest()
            for entry in self.entries
            if entry.kind == "file"
        }


def tree(*entries: Entry, **texts: str) -> Tree:
    """A tree of the entries and of files whose directories need not be named. In the names of
    files `__` stands for a slash: etc__passwd="..."."""
    contents = {"/" + name.replace("__", "/"): [text.encode()] for name, text in texts.items()}
    found = {"/": directory("/"), **{entry.path: entry for entry in entries}}
    for path, content in contents.items():
        found.setdefault(path, file(path, size=len(content[0])))
    for path in list(found):
        while (path := path.rpartition("/")[0] or "/") not in found:
            found[path] = directory(path)
    return Tree(MadeUp(list(found.values()), contents))
