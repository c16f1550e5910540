"""The lock: what the tags and package names that images stand on meant when they were locked.

`doit lock` writes it, people read and commit it. images/lock.toml is the checkout's; the toolchain
has one of its own, build/lock.toml, which travels with the program.

    [image."alpine:3.23"]            # a reference, as the Dockerfile means it
    digest = "sha256:..."            # of the image's index: every platform's image follows from it
    time = 2026-01-31T12:00:00Z      # of locking

    [base.debian-base]               # an image that is bootstrapped from packages
    suite = "trixie"                 # what it was asked to be when it was locked
    asked = ["ca-certificates"]
    arch = "aarch64"                 # where it is not x86_64
    time = 2026-01-31T12:00:00Z
    [base.debian-base.packages]      # what that came to
    apt = "3.0.4"

An entry that says the same as before keeps its time: a time moves fingerprints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fcbuild import tables
from fcbuild.errors import FcBuildError
from fcbuild.tables import Table

FILE = "lock.toml"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

ARCH = "x86_64"  # of a base that names none

_HEADER = "# Written by `doit lock`; commit it. Nothing in it is for changing by hand.\n"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 12  # characters of a digest
_NAMED = 3  # packages, in one line about many


class LockedImage(NamedTuple):
    """A tag's image. digest: `sha256:...` of its index; time: of locking, in s since 1970."""

    digest: str
    time: int


class LockedBase(NamedTuple):
    """A bootstrapped base. suite, asked, arch: what it was asked to be (asked: sorted); packages:
    name -> version of all that came; time: of locking, in s since 1970."""

    suite: str
    asked: tuple[str, ...]
    packages: Mapping[str, str]
    time: int
    arch: str = ARCH


class Lock(NamedTuple):
    """One lock document. images: by reference; bases: by name."""

    images: Mapping[str, LockedImage] = MappingProxyType({})
    bases: Mapping[str, LockedBase] = MappingProxyType({})


def insisted(environ: Mapping[str, str]) -> bool:
    """Return whether nothing may be built that is not locked: as FCBUILD_LOCKED says, and where it
    says nothing, in CI. `CI` is the variable that every CI service sets."""
    said = environ.get("FCBUILD_LOCKED") or environ.get("CI") or ""
    return said.lower() not in {"", "0", "false"}


def read(path: Path, where: str, problems: list[str]) -> Lock:
    """Read a lock document; none is an empty lock. Adds to the problems what is wrong in it."""
    if not path.exists():
        return Lock()
    before = len(problems)
    table = tables.read(path, where, problems)
    images, bases = table.table("image"), table.table("base")
    lock = Lock(
        images={name: _image(entry) for name, entry in _entries(images)},
        bases={name: _base(entry) for name, entry in _entries(bases)},
    )
    table.finish()
    if len(problems) > before:
        problems.append(f"{where}: written by `doit lock`: remove it and run `doit lock` again")
    return lock


def write(path: Path, lock: Lock) -> None:
    """Write a lock document, whole or not at all. Raises FcBuildError."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(document(lock), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise FcBuildError(f"{path} cannot be written: {error.strerror}") from error


def document(lock: Lock) -> str:
    """Return a lock as TOML: sorted, a line for each fact, so that a diff reads well."""
    lines = [_HEADER]
    for name, image in sorted(lock.images.items()):
        lines.append(f"[image.{_key(name)}]")
        lines.append(f"digest = {_string(image.digest)}")
        lines.append(f"time = {_time(image.time)}\n")
    for name, base in sorted(lock.bases.items()):
        lines.append(f"[base.{_key(name)}]")
        lines.append(f"suite = {_string(base.suite)}")
        lines.append(f"asked = [{', '.join(map(_string, base.asked))}]")
        if base.arch != ARCH:
            lines.append(f"arch = {_string(base.arch)}")
        lines.append(f"time = {_time(base.time)}")
        lines.append(f"[base.{_key(name)}.packages]")
        lines += [f"{_key(k)} = {_string(v)}" for k, v in sorted(base.packages.items())]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def moves(old: Lock, new: Lock) -> list[str]:
    """Return what differs between two locks, a line for each image and base."""
    lines = []
    for name in sorted(old.images.keys() | new.images.keys()):
        was, now = old.images.get(name), new.images.get(name)
        if was is None and now is not None:
            lines.append(f"{name}  locked: {_short(now.digest)}")
        elif was is not None and now is None:
            lines.append(f"{name}  dropped: nothing uses it")
        elif was and now and was.digest != now.digest:
            lines.append(f"{name}  {_short(was.digest)} -> {_short(now.digest)}")
    for name in sorted(old.bases.keys() | new.bases.keys()):
        before, after = old.bases.get(name), new.bases.get(name)
        if before is None and after is not None:
            lines.append(f"{name}: locked: {len(after.packages)} packages")
        elif before is not None and after is None:
            lines.append(f"{name}: dropped: it is no base any more")
        elif before and after and before.packages != after.packages:
            lines.append(f"{name}: {summary(before.packages, after.packages)}")
        elif before != after:
            lines.append(f"{name}: asked for otherwise, the same packages")
    return lines


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return how a set of packages differs from another, a line for each."""
    return [
        *(f"{name} {old[name]} -> {new[name]}" for name in _changed(old, new)),
        *(f"{name} {new[name]} added" for name in sorted(new.keys() - old.keys())),
        *(f"{name} {old[name]} removed" for name in sorted(old.keys() - new.keys())),
    ]


def summary(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return how a set of packages differs from another, in one line."""
    changed = _changed(old, new)
    parts = [f"{name} {old[name]} -> {new[name]}" for name in changed[:_NAMED]]
    if len(changed) > _NAMED:
        parts.append(f"{len(changed) - _NAMED} more")
    for count, word in (
        (len(new.keys() - old.keys()), "added"),
        (len(old.keys() - new.keys()), "removed"),
    ):
        if count:
            parts.append(f"{count} {word}")
    return ", ".join(parts)


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return sorted(name for name in old.keys() & new.keys() if old[name] != new[name])


def _entries(table: Table) -> list[tuple[str, Table]]:
    return [(name, table.table(name)) for name in table.values]


def _image(table: Table) -> LockedImage:
    for key in ("digest", "time"):
        table.require(key)
    image = LockedImage(digest=table.string("digest", pattern=DIGEST), time=_read_time(table))
    table.finish()
    return image


def _base(table: Table) -> LockedBase:
    for key in ("suite", "time", "packages"):
        table.require(key)
    base = LockedBase(
        suite=table.string("suite"),
        asked=table.strings("asked"),
        packages=table.string_map("packages"),
        time=_read_time(table),
        arch=table.string("arch", ARCH),
    )
    table.finish()
    return base


def _read_time(table: Table) -> int:
    def read(value: Any) -> int | None:
        if not isinstance(value, datetime) or value.tzinfo is None or value.year < 1970:
            return None
        return int(value.timestamp())

    return table.get("time", "a time like 2026-01-31T12:00:00Z", 0, read)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    # A JSON string is a TOML string, but for characters that no reference, package or version has.
    return json.dumps(text, ensure_ascii=False)


def _short(digest: str) -> str:
    return f"{digest[: len('sha256:') + _SHOWN]}…"
