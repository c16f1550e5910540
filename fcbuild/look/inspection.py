"""What `doit inspect` tells: a summary of a root filesystem, a directory's entries, a file."""

from __future__ import annotations

import codecs
import hashlib
import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

from fcbuild.fingerprint import SHORT
from fcbuild.look import bootrecords, packages
from fcbuild.look.bootrecords import BootRecords
from fcbuild.look.entry import Entry, Kind
from fcbuild.look.text import amount, described, harmless, listing, plural, visible
from fcbuild.look.tree import Tree
from fcbuild.store import Artifact

WIDTH = 100  # of a line of many names
_LABEL = 14

_SETID = 0o6000
_CAPABILITY = "security.capability"


def show(artifact: Artifact, tree: Tree, path: str | None, *, as_json: bool, out: TextIO) -> None:
    """Write what is asked for. Raises ImageError for a path that is not in the image."""
    if path is None:
        if as_json:
            print(json.dumps(_summary_document(artifact, tree)), file=out)
        else:
            out.writelines(f"{line}\n" for line in summary(artifact, tree))
        return
    entry = tree.find(path)
    if as_json:
        print(json.dumps(_entry_document(entry, tree)), file=out)
    elif entry.kind == "file":
        _write_content(entry, tree, out)
    else:
        entries = list(tree.children(entry.path)) if entry.kind == "directory" else [entry]
        out.writelines(f"{line}\n" for line in listing(entries, tree))


def summary(artifact: Artifact, tree: Tree) -> Iterator[str]:
    """Yield the lines of a summary."""
    space = tree.reader.space()
    used = space.size - space.free
    inodes = space.inodes - space.free_inodes
    yield f"{artifact.name}  {artifact.fingerprint[:SHORT]}  (read with {tree.reader.name})"
    yield _line("size", f"{amount(space.size)}: {amount(used)} used, {amount(space.free)} free")
    yield _line("inodes", f"{space.inodes}: {inodes} used, {space.free_inodes} free")
    yield _line("entries", _counted(tree))
    yield from _wrapped("users", [visible(name) for _, name in sorted(tree.users.items())])
    counts = Counter(manager for manager, _ in packages.installed(tree))
    held = (f"{count} by {manager}" for manager, count in sorted(counts.items()))
    yield _line("packages", ", ".join(held) or "no database of dpkg or apk")
    if boot := boot_records(tree):
        yield _line("boot config", f"version {boot.version}")
        for label, value in bootrecords.readable(boot):
            yield _line(f"  {label}", visible(value))


def boot_records(tree: Tree) -> BootRecords | None:
    """Return the boot config, or None where an image has none. Raises ImageError."""
    document = tree.content(bootrecords.PATH)
    return None if document is None else bootrecords.parse(document)


def _line(label: str, value: str) -> str:
    return f"{label:<{_LABEL}}{'' if len(label) < _LABEL else ' '}{value}"


def _wrapped(label: str, words: list[str]) -> Iterator[str]:
    text = f"{len(words)}: {', '.join(words)}" if words else "no /etc/passwd"
    lines = textwrap.wrap(text, WIDTH - _LABEL, break_on_hyphens=False)
    yield _line(label, lines[0])
    yield from (_line("", line) for line in lines[1:])


def _counted(tree: Tree) -> str:
    kinds = Counter(entry.kind for entry in tree.entries.values())
    words: dict[Kind, tuple[str, str]] = {
        "file": ("file", "files"),
        "directory": ("directory", "directories"),
        "link": ("symbolic link", "symbolic links"),
        "char": ("character device", "character devices"),
        "block": ("block device", "block devices"),
        "fifo": ("fifo", "fifos"),
        "socket": ("socket", "sockets"),
    }
    counted = [plural(kinds[kind], *words[kind]) for kind in words if kinds[kind]]
    files = [entry for entry in tree.entries.values() if entry.kind == "file"]
    setid = sum(bool(entry.mode & _SETID) for entry in files)
    capable = sum(_CAPABILITY in entry.xattrs for entry in files)
    if setid:
        counted.append(f"{setid} setuid or setgid")
    if capable:
        counted.append(f"{capable} with capabilities")
    return ", ".join(counted)


def _summary_document(artifact: Artifact, tree: Tree) -> dict[str, Any]:
    space = tree.reader.space()
    boot = boot_records(tree)
    return {
        "image": artifact.name,
        "fingerprint": artifact.fingerprint,
        "digests": {name: f"sha256:{digest}" for name, digest in artifact.digests.items()},
        "reader": tree.reader.name,
        "size": space.size,
        "free": space.free,
        "inodes": space.inodes,
        "free_inodes": space.free_inodes,
        "entries": Counter(entry.kind for entry in tree.entries.values()),
        "users": [{"uid": uid, "name": name} for uid, name in sorted(tree.users.items())],
        "packages": [
            {"manager": manager, "name": name, "version": version}
            for (manager, name), version in sorted(packages.installed(tree).items())
        ],
        "boot": boot and {"version": boot.version, "records": boot.values},
    }


def _entry_document(entry: Entry, tree: Tree) -> dict[str, Any]:
    document = described(entry, tree)
    if entry.kind == "directory":
        document["entries"] = [described(child, tree) for child in tree.children(entry.path)]
    elif entry.kind == "file":
        digest = hashlib.sha256()
        for piece in tree.reader.read(entry):
            digest.update(piece)
        document["sha256"] = digest.hexdigest()
    return document


def _write_content(entry: Entry, tree: Tree, out: TextIO) -> None:
    """Write a file: its very bytes to a pipe, text that does no harm to a terminal."""
    if not out.isatty():
        out.flush()
        for piece in tree.reader.read(entry):
            out.buffer.write(piece)
        out.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for piece in tree.reader.read(entry):
        out.write(harmless(decoder.decode(piece)))
    out.write(harmless(decoder.decode(b"", final=True)))
