"""What an object of the store says about itself, and whether its files are as it says.

    manifest.json   name, kind, fingerprint, facts, build time
      files         name -> sha256 and size, of the payload
      records       the same of build.log and inputs.json
      digest        sha256 of the canonical JSON of all the rest

Objects of older fcbuilds have neither `records` nor `digest`; they are as good without.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fcbuild.errors import StoreError
from fcbuild.fingerprint import Json, canonical, digest

NAME = "manifest.json"
RECORDS = ("build.log", "inputs.json")

# What tells a file from what it was: size, mtime and ctime in ns, inode.
Mark = tuple[int, int, int, int]


class Damaged(StoreError):
    """An object's manifest cannot be read."""


class Artifact(NamedTuple):
    """An object of the store. `digests` maps each payload file to the sha256 of its bytes.

    records: the sha256 of its log and inputs. sizes: of payload and records, in bytes.
    """

    kind: str
    name: str
    fingerprint: str
    directory: Path
    digests: Mapping[str, str]
    facts: Mapping[str, Json]
    records: Mapping[str, str] = MappingProxyType({})
    sizes: Mapping[str, int] = MappingProxyType({})

    def file(self, name: str) -> Path:
        return self.directory / name


def describe(directory: Path, names: list[str]) -> dict[str, Json]:
    """Return what a manifest says about these files."""
    return {
        name: {"sha256": digest(directory / name), "size": (directory / name).stat().st_size}
        for name in names
    }


def sealed(manifest: Mapping[str, Json]) -> str:
    """Return the text of a manifest, with its own digest in it."""
    plain: dict[str, Json] = json.loads(json.dumps(manifest))  # as it will be read
    seal = hashlib.sha256(canonical(plain)).hexdigest()
    return json.dumps({**plain, "digest": seal}, indent=1) + "\n"


def read(directory: Path) -> Artifact | None:
    """Return the object in a directory, or None where there is none. Raises Damaged."""
    try:
        text = (directory / NAME).read_bytes()
        found: dict[str, Any] = json.loads(text)
        if found.pop("digest", None) is not None and text != sealed(found).encode():
            raise ValueError("its bytes are not what was written")
        files, records = found["files"], found.get("records", {})
        return Artifact(
            directory.parent.name,
            str(found["name"]),
            directory.name,
            directory,
            {name: str(entry["sha256"]) for name, entry in files.items()},
            dict(found["facts"]),
            {name: str(entry["sha256"]) for name, entry in records.items()},
            {name: int(entry["size"]) for name, entry in {**files, **records}.items()},
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{directory}/{NAME} cannot be used: {error}") from error


def flaws(artifact: Artifact) -> Iterator[str]:
    """Yield what is wrong as far as it can be seen without reading: files that are missing or have
    another size."""
    for name, size in artifact.sizes.items():
        try:
            status = artifact.file(name).lstat()
        except OSError as error:
            yield f"{name}: {error.strerror}"
            continue
        if not stat.S_ISREG(status.st_mode):
            yield f"{name} is not a file"
        elif status.st_size != size:
            yield f"{name} has {status.st_size} bytes, not {size}"


def damage(artifact: Artifact) -> Iterator[str]:
    """Yield what is wrong, every byte read."""
    if found := [*flaws(artifact)]:
        yield from found
        return
    for name, expected in {**artifact.digests, **artifact.records}.items():
        try:
            if digest(artifact.file(name)) != expected:
                yield f"{name} has other bytes than were built"
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror}"


def foreign(artifact: Artifact) -> list[Path]:
    """Return what is in an object's directory and does not belong there."""
    own = {NAME, *RECORDS, *artifact.digests}
    return sorted(path for path in artifact.directory.iterdir() if path.name not in own)


def marks(artifact: Artifact) -> dict[str, Mark]:
    """Return the marks of the payload: while they stay, so do the bytes. Raises OSError."""
    statuses = {name: artifact.file(name).lstat() for name in artifact.digests}
    return {
        name: (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        for name, status in statuses.items()
    }


def parents(directory: Path) -> list[tuple[str, str]]:
    """Return kind and fingerprint of what an object was made from, as its inputs say."""
    try:
        inputs = json.loads((directory / "inputs.json").read_bytes())
        found = inputs.get("parents", {})
        return [(str(name).partition(":")[0], str(value)) for name, value in found.items()]
    except (OSError, ValueError, AttributeError):
        return []
