"""The content-addressed store: every built artifact, under its fingerprint.

    STORE/                          FCBUILD_STORE, or artifacts/store
      schema                        the layout's version, one number
      objects/<kind>/<fingerprint>/ immutable; its files are read-only
        <payload files>             vmlinux, rootfs.ext4, init, ...
        build.log                   what the tools printed
        inputs.json                 pre-image of the fingerprint: a diff of two says why one rebuilt
        manifest.json               name, digest and size of each payload file, facts, build time
      stage/<kind>-<random>/        builds under way; a killed one leaves only this
      logs/<kind>-<name>.log        of the last build under this name, whatever came of it
      downloads/<sha256>            pinned files that were fetched (fetch.py)
      locks/<kind>-<fingerprint>    flock: one builder an object

Rules. An object appears whole or not at all: it is built in a stage, digested, fsynced and renamed.
The store is the truth and doit's database is not. Two builders of one fingerprint wait for each
other; should both build after all, the first rename wins. Only this module writes here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from fcbuild.errors import StoreError
from fcbuild.fingerprint import Json, canonical, digest
from fcbuild.plan import Recipe

LAYOUT = "1"
_META = {"manifest.json", "inputs.json", "build.log"}

State = Literal["built", "stored"]


@dataclass(frozen=True)
class Artifact:
    """An object of the store. `digests` maps each payload file to the sha256 of its bytes."""

    kind: str
    name: str
    fingerprint: str
    directory: Path
    digests: Mapping[str, str]
    facts: Mapping[str, Json]

    def file(self, name: str) -> Path:
        return self.directory / name


class Stage:
    """A private directory in which one object is being built, and its log.

    What is in `directory` when the build returns becomes the object; `scratch` is thrown away.
    """

    def __init__(self, directory: Path, scratch: Path, log: IO[bytes], log_path: Path) -> None:
        self.directory = directory
        self.scratch = scratch
        self.log = log
        self.log_path = log_path
        self.facts: dict[str, Json] = {}

    def file(self, name: str) -> Path:
        return self.directory / name


class Store:
    """All access to one store directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, recipe: Recipe) -> Artifact | None:
        """Return the object of this recipe, or None. Raises StoreError if it is not readable."""
        found = self._read(self._object(recipe))
        return found and replace(found, name=recipe.name)

    def objects(self, kind: str) -> list[Artifact]:
        """Return all objects of a kind, the newest first. Raises StoreError."""
        found = []
        for directory in (self.root / "objects" / kind).glob("*"):
            if artifact := self._read(directory):
                found.append((directory.stat().st_mtime, artifact))
        return [artifact for _, artifact in sorted(found, key=lambda item: -item[0])]

    def _read(self, directory: Path) -> Artifact | None:
        try:
            manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
            return Artifact(
                directory.parent.name,
                str(manifest["name"]),
                directory.name,
                directory,
                {name: str(entry["sha256"]) for name, entry in manifest["files"].items()},
                dict(manifest["facts"]),
            )
        except (FileNotFoundError, NotADirectoryError):
            return None  # a store whose place is taken by a file: obtain says so
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{directory}/manifest.json cannot be used: {error}",
                hint=f"remove {directory}; it is built again when needed",
            ) from error

    def need(self, recipe: Recipe) -> Artifact:
        """Return the object of a recipe that another build stands on. Raises StoreError."""
        found = self.find(recipe)
        if found is None:
            raise StoreError(
                f"{recipe} {recipe.short} is not in the store", hint=f"doit {recipe} makes it"
            )
        return found

    def obtain(self, recipe: Recipe, build: Callable[[Stage], None]) -> tuple[Artifact, State]:
        """Return the recipe's object, building it if the store lacks it.

        A build that fails leaves nothing but its log.
        """
        if found := self.find(recipe):
            return found, "stored"
        self._prepare()
        with self._lock(recipe):
            if found := self.find(recipe):
                return found, "stored"
            started = time.monotonic()
            with self._stage(recipe) as stage:
                build(stage)
                self._commit(recipe, stage, seconds=time.monotonic() - started)
        return self.need(recipe), "built"

    def previous(self, recipe: Recipe) -> dict[str, Json] | None:
        """Return the inputs of the newest object of this kind and name, to explain a rebuild."""
        newest: tuple[float, Path] | None = None
        for manifest in (self.root / "objects" / recipe.kind).glob("*/manifest.json"):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if json.loads(manifest.read_bytes()).get("name") == recipe.name:
                    mtime = manifest.stat().st_mtime
                    newest = max(newest or (0.0, manifest), (mtime, manifest))
        if newest is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            inputs: dict[str, Json] = json.loads((newest[1].parent / "inputs.json").read_bytes())
            return inputs
        return None

    def log_path(self, recipe: Recipe) -> Path:
        """Where the log of the last build under this name is; a whole object has its own copy."""
        return self.root / "logs" / f"{recipe.kind}-{recipe.name}.log"

    @contextlib.contextmanager
    def log(self, recipe: Recipe) -> Iterator[IO[bytes]]:
        """Open the log of a build."""
        self._prepare()
        with self._writing():
            log = self.log_path(recipe).open("wb", buffering=0)
        with log:
            yield log

    def _object(self, recipe: Recipe) -> Path:
        return self.root / "objects" / recipe.kind / recipe.fingerprint

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn the system's refusal to write here into ours."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written: {error.strerror}",
                hint="set FCBUILD_STORE to a directory of yours",
            ) from error

    def _prepare(self) -> None:
        with self._writing():
            for part in ("objects", "stage", "locks", "logs"):
                (self.root / part).mkdir(mode=0o700, parents=True, exist_ok=True)
            marker = self.root / "schema"
            if not marker.exists():
                # In one step: another builder must not read half of it.
                own = self.root / f".schema.{os.getpid()}.{threading.get_ident()}"
                own.write_text(f"{LAYOUT}\n")
                own.rename(marker)
            layout = marker.read_text().strip()
        if layout != LAYOUT:
            raise StoreError(
                f"the store {self.root} has layout {layout}, this fcbuild writes layout {LAYOUT}",
                hint="set FCBUILD_STORE to another directory, or remove this one",
            )

    @contextlib.contextmanager
    def _lock(self, recipe: Recipe) -> Iterator[None]:
        # The kernel drops the lock with the process, however that ends.
        path = self.root / "locks" / f"{recipe.kind}-{recipe.fingerprint}"
        with self._writing():
            file = path.open("ab")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _stage(self, recipe: Recipe) -> Iterator[Stage]:
        with self._writing():
            own = Path(tempfile.mkdtemp(prefix=f"{recipe.kind}-", dir=self.root / "stage"))
        directory, scratch = own / "object", own / "scratch"
        try:
            directory.mkdir()
            scratch.mkdir()
            with self.log(recipe) as log:
                yield Stage(directory, scratch, log, self.log_path(recipe))
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def _commit(self, recipe: Recipe, stage: Stage, *, seconds: float) -> None:
        files: dict[str, Json] = {}
        for path in sorted(stage.directory.iterdir()):
            if path.name not in _META:
                files[path.name] = {"sha256": digest(path), "size": path.stat().st_size}
        manifest: Json = {
            "kind": recipe.kind,
            "name": recipe.name,
            "fingerprint": recipe.fingerprint,
            "files": files,
            "facts": stage.facts,
            "built_in_ms": round(seconds * 1000),
        }
        shutil.copyfile(stage.log_path, stage.file("build.log"))
        stage.file("manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        stage.file("inputs.json").write_bytes(canonical(recipe.document))
        for path in stage.directory.iterdir():
            executable = path.stat().st_mode & 0o100
            path.chmod(0o555 if executable else 0o444)
            _fsync(path)
        _fsync(stage.directory)
        target = self._object(recipe)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            stage.directory.rename(target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise StoreError(f"{target} cannot be committed: {error.strerror}") from error
        _fsync(target.parent)


def link(artifact: Artifact, name: str, at: Path) -> None:
    """Point the link `at` to a file of an artifact, replacing an older link in one step."""
    at.parent.mkdir(parents=True, exist_ok=True)
    temporary = at.with_name(f".{at.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(artifact.file(name))
    temporary.replace(at)


def links_to(at: Path, artifact: Artifact, name: str) -> bool:
    """Return whether the link `at` leads to this file of this artifact."""
    try:
        return at.readlink() == artifact.file(name)
    except OSError:
        return False


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
