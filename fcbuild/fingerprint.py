"""Fingerprints name inputs; digests name bytes. Both are sha256 in hexadecimal.

A fingerprint is the digest of the canonical JSON of everything that shapes an artifact, so it is
known before anything is built, and two of them can be compared key by key.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Describe files below root, one string each."""
    return {name(os.fspath(path.relative_to(root))): describe(path) for path in paths}


def name(path: str) -> str:
    """Return a file's name as it stands in inputs: one that is not UTF-8 keeps its bytes."""
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def describe(
    path: str | Path,
    status: os.stat_result | None = None,
    digest_of: Callable[[str, os.stat_result], str] | None = None,
) -> str:
    """Describe one file, link or directory by type, executable bit and content.

    Owners, times and permission bits other than "executable by its owner" are not inputs: they
    differ between two clones of the same commit. status: what lstat says, where that is known.
    """
    status = status or os.lstat(path)
    what = kind(status)
    if what == "link":
        return f"link {hashlib.sha256(os.fsencode(Path(path).readlink())).hexdigest()}"
    if what == "dir":
        return what
    return f"{what} {digest_of(os.fspath(path), status) if digest_of else digest(Path(path))}"


def kind(status: os.stat_result) -> str:
    """Return the first word of a description."""
    if stat.S_ISLNK(status.st_mode):
        return "link"
    if stat.S_ISDIR(status.st_mode):
        return "dir"
    return "exec" if status.st_mode & stat.S_IXUSR else "file"
