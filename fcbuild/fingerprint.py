"""Fingerprints name inputs; digests name bytes. Both are sha256 in hexadecimal.

A fingerprint is the digest of the canonical JSON of everything that shapes an artifact, so it is
known before anything is built, and two of them can be compared key by key.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# JSON values; inputs are trees of these.
Json = str | int | bool | None | Sequence["Json"] | Mapping[str, "Json"]

SHORT = 12  # characters of a fingerprint that are shown to people


def canonical(value: Json) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, a newline at the end."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode("ascii")


def fingerprint(kind: str, schema: int, inputs: Json) -> str:
    """Return the fingerprint of an artifact of this kind, made by this version of its builder."""
    return hashlib.sha256(canonical({"kind": kind, "schema": schema, "inputs": inputs})).hexdigest()


def digest(path: Path) -> str:
    """Return the sha256 of a file's bytes; memory use does not depend on its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(root: Path, paths: Iterable[Path]) -> Json:
    """Describe files below root, one string each: what `context` would hand to the engine.

    Owners, times and permission bits other than "executable by its owner" are not inputs: they
    differ between two clones of the same commit. Names that are not UTF-8 keep their bytes.
    """
    described: dict[str, Json] = {}
    for path in paths:
        data = os.fsencode(path.relative_to(root)).replace(b"\\", b"\\\\")
        name = data.decode("utf-8", "backslashreplace")
        described[name] = describe(path)
    return described


def describe(path: Path) -> str:
    """Describe one file, link or directory by type, executable bit and content."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = os.fsencode(path.readlink())
        return "link " + hashlib.sha256(target).hexdigest()
    if stat.S_ISDIR(status.st_mode):
        return "dir"
    return f"{'exec' if status.st_mode & stat.S_IXUSR else 'file'} {digest(path)}"
