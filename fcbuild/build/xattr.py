"""Extended attributes: from the engine's tar onto an ext4 image, by debugfs, which needs no mount.

Each attribute is written, read back and compared, because debugfs ends with status 0 whatever
became of a command.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcbuild.build.tree import printable
from fcbuild.errors import BuildError

# The directory that holds all this, and what is in it.
SCRATCH = "xattrs"
_VALUES, _ODD, _READ_BACK = "values", "odd", "read-back"

# The name spaces that ext4 knows: fs/ext4/xattr.c.
_SPACES = ("user.", "trusted.", "security.")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")

# A line of a debugfs script ends after so many bytes: BUFSIZ of its C library.
_LINE = 8192 - 2

_ACL_HEADER, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # posix_acl_xattr.h
_ACL_VERSION = 2
_ACL_NAMED = (0x02, 0x08)  # ACL_USER and ACL_GROUP, the entries whose id means something

_SHOWN = 10  # names in an error


@dataclass(frozen=True)
class Xattr:
    """One attribute of the file at an absolute path."""

    path: str
    name: str
    value: bytes


def prepare(xattrs: Sequence[Xattr], scratch: Path) -> None:
    """Write the values, and debugfs's commands to set and to read them, to scratch/xattrs.

    Raises BuildError naming the files whose attributes ext4 does not take.
    """
    strange = [x for x in xattrs if not (x.name.startswith(_SPACES) or x.name in _ACLS)]
    if strange:
        raise BuildError(
            f"ext4 has no such extended attributes: {_listed(strange)}",
            hint="remove them in the Dockerfile (setfattr -x NAME FILE)",
        )
    at = scratch / SCRATCH
    for directory in (_VALUES, _ODD, _READ_BACK):
        (at / directory).mkdir(parents=True)
    with (at / "set").open("wb") as setting, (at / "get").open("wb") as getting:
        for number, xattr in enumerate(xattrs):
            value = _value(xattr)
            digest = hashlib.sha256(value).hexdigest()
            (at / _VALUES / digest).write_bytes(value)
            target = f"{_quoted(xattr.path)} {_quoted(xattr.name)}"
            for file, name, command in (
                (setting, "set", f"ea_set -f /xattrs/{_VALUES}/{digest} {target}"),
                (getting, "get", f"ea_get -f /xattrs/{_READ_BACK}/{number} {target}"),
            ):
                line = command.encode("utf-8", "surrogateescape")
                if b"\n" in line or b"\r" in line or len(line) > _LINE:
                    # No line of a script: it is given as an argument.
                    (at / _ODD / f"{number}.{name}").write_bytes(line)
                else:
                    file.write(line + b"\n")


# Runs in the toolchain image with scratch/xattrs at /xattrs, and the ext4 image in $IMAGE.
COMMANDS = f"""
if test -d /xattrs; then
    debugfs -w -f /xattrs/set "$IMAGE" > /dev/null
    for odd in /xattrs/{_ODD}/*.set; do
        test ! -e "$odd" || debugfs -w -R "$(cat "$odd")" "$IMAGE"
    done
    debugfs -f /xattrs/get "$IMAGE" > /dev/null
    for odd in /xattrs/{_ODD}/*.get; do
        test ! -e "$odd" || debugfs -R "$(cat "$odd")" "$IMAGE"
    done
fi
"""


def check(xattrs: Sequence[Xattr], scratch: Path) -> None:
    """Compare what was read back. Raises BuildError naming the files that lost an attribute."""
    lost = [
        xattr
        for number, xattr in enumerate(xattrs)
        if _content(scratch / SCRATCH / _READ_BACK / str(number)) != _value(xattr)
    ]
    if lost:
        raise BuildError(
            f"extended attributes that could not be carried over: {_listed(lost)}",
            hint="all attributes of a file have to fit in one block of 4096 bytes; "
            "the build's log has debugfs's own words",
        )


def _value(xattr: Xattr) -> bytes:
    """Return the value as it is read back: what an ACL says of ids that mean nothing is dropped."""
    if xattr.name not in _ACLS:
        return xattr.value
    try:
        (version,) = _ACL_HEADER.unpack_from(xattr.value)
        entries = list(_ACL_ENTRY.iter_unpack(xattr.value[_ACL_HEADER.size :]))
    except struct.error:
        version, entries = None, []
    if version != _ACL_VERSION:
        raise BuildError(f"not a POSIX ACL: {_listed([xattr])}")
    return _ACL_HEADER.pack(version) + b"".join(
        _ACL_ENTRY.pack(tag, permissions, identity if tag in _ACL_NAMED else 0)
        for tag, permissions, identity in entries
    )


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _listed(xattrs: Sequence[Xattr]) -> str:
    def names() -> Iterator[str]:
        yield from (f"{printable(x.name)} of {printable(x.path)}" for x in xattrs[:_SHOWN])
        if len(xattrs) > _SHOWN:
            yield f"and {len(xattrs) - _SHOWN} more"

    return ", ".join(names())
