"""Text from an image, made fit for a terminal and for lines, and a few words about entries."""

from __future__ import annotations

import stat
import time
from typing import Any

from fcbuild.look.entry import Entry
from fcbuild.look.tree import Tree

_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def visible(text: str) -> str:
    """Return text that is one line and that no terminal acts on: what does not print is written as
    its bytes, `\\x1b`, and a backslash twice, so that nothing else looks like it."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join("\\\\" if character == "\\" else _printing(character) for character in text)


def harmless(text: str) -> str:
    """Return text of many lines that no terminal acts on."""
    return "".join(c if c in "\n\t" else _printing(c) for c in text)


def _printing(character: str) -> str:
    if character.isprintable():
        return character
    try:
        content = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no byte of a name, but JSON's escapes make such ones, too
        content = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in content)


def amount(size: int) -> str:
    """Return a number of bytes as people read it: 512 bytes, 1.4 KiB, 283 MiB."""
    number, unit = float(size), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    digits = 1 if unit and number < 10 else 0
    return f"{number:.{digits}f} {_UNITS[unit]}"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def when(mtime: int) -> str:
    """Return a time as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(mtime))


def listing(entries: list[Entry], tree: Tree) -> list[str]:
    """Return a line for each entry, as `ls -l` has them: `+` marks an access control list, and
    other extended attributes stand in brackets."""
    rows = [_row(entry, tree) for entry in entries]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    left = {0, 2, 3}
    return [
        " ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        + f" {row[5]}"
        for row in rows
    ]


def _row(entry: Entry, tree: Tree) -> tuple[str, ...]:
    acl = "+" if entry.xattrs.keys() & set(_ACLS) else ""
    others = sorted(name for name in entry.xattrs if name not in _ACLS)
    name = visible(entry.name or "/")
    if entry.kind == "link":
        name += f" -> {visible(entry.target)}"
    if others:
        name += f" [{' '.join(map(visible, others))}]"
    user = visible(tree.users.get(entry.uid, str(entry.uid)))
    group = visible(tree.groups.get(entry.gid, str(entry.gid)))
    return (
        stat.filemode(entry.mode) + acl,
        str(entry.links),
        f"{entry.uid}:{entry.gid}",
        f"{user}:{group}",
        "{}, {}".format(*entry.device) if entry.device else str(entry.size),
        f"{when(entry.mtime)} {name}",
    )


def described(entry: Entry, tree: Tree | None = None) -> dict[str, Any]:
    """Return an entry for machines. Attributes' values are in hexadecimal; bytes of names that are
    not UTF-8 are lone surrogates, U+DC80 to U+DCFF."""
    document: dict[str, Any] = {
        "path": entry.path,
        "type": entry.kind,
        "mode": f"{entry.permissions:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime,
        "inode": entry.inode,
        "links": entry.links,
        "xattrs": {name: value.hex() for name, value in sorted(entry.xattrs.items())},
    }
    if entry.kind == "link":
        document["target"] = entry.target
    if entry.device:
        document["device"] = list(entry.device)
    if tree:
        document["user"] = tree.users.get(entry.uid)
        document["group"] = tree.groups.get(entry.gid)
    return document
