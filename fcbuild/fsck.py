"""Read the whole store and look whether everything is as it was built; drop what is not.

What is dropped is built again, or fetched again, when it is needed: nothing in the store is the
only copy of anything but time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from fcbuild import progress
from fcbuild.fingerprint import SHORT, digest
from fcbuild.store import Store, locks, manifest
from fcbuild.store.links import links_of
from fcbuild.store.manifest import Artifact, Damaged

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_SCRATCH = "fetch-"  # of a download under way: fetch.py


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. done: what was done about it, or would be."""

    what: str
    wrong: str
    done: str


def check(store: Store, artifacts: Path, *, dry_run: bool) -> list[Finding]:
    """Read everything; return what was found, and repair it unless `dry_run`. artifacts: of this
    checkout, for its links. Raises StoreError for a store that cannot be read or written."""
    found = [*_strangers(store, dry_run=dry_run)]
    objects = [path for path in store.directories() if _FINGERPRINT.fullmatch(path.name)]
    with progress.step(f"fsck: reading {len(objects)} objects"):
        for number, directory in enumerate(objects, start=1):
            progress.detail(f"{number} of {len(objects)}, {directory.parent.name}")
            found += _object(store, directory, dry_run=dry_run)
    downloads = sorted((store.root / "downloads").glob("*"))
    with progress.step(f"fsck: reading {len(downloads)} downloads"):
        for path in downloads:
            found += _download(store, path, dry_run=dry_run)
    return [*found, *_links(artifacts, dry_run=dry_run)]


def show(found: list[Finding], *, as_json: bool, dry_run: bool, out: IO[str]) -> None:
    """Print what was found."""
    if as_json:
        document = {"dry_run": dry_run, "findings": [asdict(finding) for finding in found]}
        json.dump(document, out, indent=1)
        print(file=out)
        return
    for finding in found:
        done = f"would be {finding.done}" if dry_run else finding.done
        print(f"{finding.what}: {finding.wrong}: {done}", file=out)
    if not found:
        print("the store is as it was built", file=out)


def _object(store: Store, directory: Path, *, dry_run: bool) -> Iterator[Finding]:
    # Held while it is read, so that gc does not take it away meanwhile.
    lock = locks.share(directory)
    if lock is None:
        return
    try:
        title, wrong, strange = _look(directory)
    finally:
        os.close(lock)
    if wrong:
        done = "dropped, to be built again when it is needed"
        if not dry_run and not store.drop(directory):
            done = "in use, and left: run doit fsck again"
        yield Finding(title, "; ".join(wrong), done)
        return
    for path in strange:
        if not dry_run:
            store.discard(path)
        yield Finding(f"{title}/{path.name}", "does not belong there", "removed")


def _look(directory: Path) -> tuple[str, list[str], list[Path]]:
    """Return an object's title, what is wrong with it, and what in it is foreign."""
    title = f"{directory.parent.name}:? {directory.name[:SHORT]}"
    try:
        artifact = manifest.read(directory)
    except Damaged as error:
        return title, [error.message.rpartition("/")[2]], []
    if artifact is None:
        return title, [f"{manifest.NAME} is missing"], []
    title = f"{artifact.kind}:{artifact.name} {artifact.fingerprint[:SHORT]}"
    return title, [*manifest.damage(artifact), *_records(artifact)], manifest.foreign(artifact)


def _records(artifact: Artifact) -> Iterator[str]:
    # Older objects have no digests of these; that they are there can be asked of all.
    for name in manifest.RECORDS:
        if name not in artifact.records and not artifact.file(name).is_file():
            yield f"{name} is missing"


def _strangers(store: Store, *, dry_run: bool) -> Iterator[Finding]:
    """Find what is below objects/ and is no object. Kinds are not judged: another fcbuild may have
    more."""
    root = store.root / "objects"
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        deep = path.parent != root
        if path.is_dir() and (not deep or _FINGERPRINT.fullmatch(path.name)):
            continue
        if not dry_run:
            store.discard(path)
        yield Finding(os.fspath(path.relative_to(store.root)), "does not belong there", "removed")


def _download(store: Store, path: Path, *, dry_run: bool) -> Iterator[Finding]:
    if path.name.startswith(_SCRATCH):
        return
    progress.detail(path.name)
    title = f"download {path.name[:SHORT]}"
    try:
        whole = _FINGERPRINT.fullmatch(path.name) and digest(path) == path.name
        wrong = "has other bytes than its name says"
        if not _FINGERPRINT.fullmatch(path.name):
            title, wrong = f"downloads/{path.name}", "does not belong there"
    except FileNotFoundError:
        return
    except OSError as error:
        whole, wrong = False, f"cannot be read: {error.strerror}"
    if not whole:
        if not dry_run:
            store.discard(path)
        yield Finding(title, wrong, "dropped, to be fetched again when it is needed")


def _links(artifacts: Path, *, dry_run: bool) -> Iterator[Finding]:
    for link in links_of(artifacts):
        if not link.exists():
            if not dry_run:
                link.unlink(missing_ok=True)
            where = os.fspath(link.relative_to(artifacts.parent))
            yield Finding(where, "leads to nothing", "removed; doit build makes it again")
