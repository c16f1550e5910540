"""The program that reads root filesystems through the guestfs bindings, for fcbuild.look.guestfs.

It runs in the interpreter that has the bindings, which is the system's, and so imports nothing of
fcbuild. Its arguments are the images. Each line on its standard input is a question, JSON:

    {"ask": "space" | "walk" | "read" | "digests", "image": NUMBER, "path": FILE, to read it}

and its standard output has the answer, a JSON object a line, the last of them {"end": true}, or
{"error": TEXT} for what cannot be answered. The first line, without a question, is {"end": true}
once the appliance runs. It leaves at the end of its input.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

PIECE = 1 << 20  # bytes of a file in one line

_MOUNT = "ro,noload"  # an image of ours is clean; nothing is to be replayed into it


class Unspeakable(Exception):
    """A name that the bindings cannot take: they know text, and this one is not UTF-8."""


def main(images: list[str]) -> None:
    import guestfs

    # So that the appliance ends, and its directories go, in whichever way we do.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # python_return_dict: structures come as dictionaries, lists of pairs too.
    guest = guestfs.GuestFS(python_return_dict=True)
    for image in images:
        guest.add_drive_ro(image)
    try:
        guest.launch()
        say({"end": True})
        mounted = None
        for line in sys.stdin:
            question = json.loads(line)
            try:
                if question["image"] != mounted:
                    guest.umount_all()
                    guest.mount_options(_MOUNT, guest.list_devices()[question["image"]], "/")
                    mounted = question["image"]
                for answer in answers(guest, question):
                    say(answer)
                say({"end": True})
            except (RuntimeError, Unspeakable) as error:
                say({"error": str(error)})
    except RuntimeError as error:
        say({"error": str(error)})
    finally:
        guest.close()


def answers(guest: Any, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if question["ask"] == "space":
        found = guest.statvfs("/")
        yield {
            "free": found["bfree"] * found["bsize"],
            "inodes": found["files"],
            "free_inodes": found["ffree"],
        }
    elif question["ask"] == "walk":
        yield from walk(guest)
    elif question["ask"] == "read":
        yield from read(guest, question["path"])
    elif question["ask"] == "digests":
        yield from digests(guest)


def walk(guest: Any) -> Iterator[dict[str, Any]]:
    """Yield every entry, those of one directory with three calls: a call for each would take ten
    times as long."""
    root = guest.lstatns("/")
    yield entry("/", root, {item["attrname"]: item["attrval"] for item in guest.lgetxattrs("/")})
    directories: dict[bytes, list[bytes]] = {}
    for path in found_paths(guest):
        parent, _, base = (b"/" + path).rpartition(b"/")
        directories.setdefault(parent, []).append(base)
    for parent, bases in directories.items():
        prefix = text(parent)
        names = [text(base) for base in bases]
        stats = guest.lstatnslist(prefix or "/", names)
        xattrs = attributes(guest.lxattrlist(prefix or "/", names))
        links = [name for name, at in zip(names, stats, strict=True) if stat.S_ISLNK(at["st_mode"])]
        targets = dict(zip(links, guest.readlinklist(prefix or "/", links), strict=True))
        for name, found, extended in zip(names, stats, xattrs, strict=True):
            yield entry(f"{prefix}/{name}", found, extended, targets.get(name, ""))


def found_paths(guest: Any) -> Iterator[bytes]:
    """Yield all paths, relative to the root."""
    with scratch() as file:
        guest.find0("/", file.name)
        yield from file.read().split(b"\0")[:-1]


def attributes(listed: Iterable[dict[str, Any]]) -> Iterator[dict[str, bytes]]:
    """Yield the attributes of one file after the other, from the answer to lxattrlist: for each
    file a record without a name, whose value is their number, then a record for each."""
    records = iter(listed)
    for header in records:
        number = int(header["attrval"].rstrip(b"\0") or b"0")
        found = (next(records) for _ in range(number))
        yield {item["attrname"]: item["attrval"] for item in found}


def entry(
    path: str, found: dict[str, int], xattrs: dict[str, bytes], target: str = ""
) -> dict[str, Any]:
    device = stat.S_ISCHR(found["st_mode"]) or stat.S_ISBLK(found["st_mode"])
    return {
        "path": path,
        "mode": found["st_mode"],
        "uid": found["st_uid"],
        "gid": found["st_gid"],
        "size": found["st_size"],
        "mtime": found["st_mtime_sec"],
        "inode": found["st_ino"],
        "links": found["st_nlink"],
        "target": target,
        "device": [os.major(found["st_rdev"]), os.minor(found["st_rdev"])] if device else None,
        "xattrs": {name: value.hex() for name, value in xattrs.items()},
    }


def read(guest: Any, path: str) -> Iterator[dict[str, Any]]:
    offset = 0
    while piece := guest.pread(path, PIECE, offset):
        yield {"piece": base64.b64encode(piece).decode()}
        offset += len(piece)


def digests(guest: Any) -> Iterator[dict[str, Any]]:
    with scratch() as file:
        guest.checksums_out("sha256", "/", file.name)
        for line in file:
            yield summed(line)


def scratch() -> Any:
    """Return a temporary file, with a name, next to those of libguestfs."""
    return tempfile.NamedTemporaryFile(dir=os.environ.get("LIBGUESTFS_TMPDIR"))


def summed(line: bytes) -> dict[str, Any]:
    """Read a line of sha256sum: one that begins with a backslash has a name with escapes."""
    escaped = line.startswith(b"\\")
    digest, _, name = line.removeprefix(b"\\").rstrip(b"\n").partition(b"  ")
    if escaped:
        kept = name.split(b"\\\\")  # no piece of it has a backslash of its own
        name = b"\\".join(p.replace(b"\\n", b"\n").replace(b"\\r", b"\r") for p in kept)
    return {"path": text(name.removeprefix(b".")), "digest": digest.decode()}


def text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise Unspeakable(f"the bindings cannot take the name {name!r}") from error


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    if "end" in answer or "error" in answer:
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
