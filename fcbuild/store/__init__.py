"""The content-addressed store: every built artifact, under its fingerprint.

    STORE/                          FCBUILD_STORE, or artifacts/store
      schema                        the layout's version, one number
      objects/<kind>/<fingerprint>/ immutable; it and its files are read-only
        <payload files>             vmlinux, rootfs.ext4, init, ...
        build.log                   what the tools printed
        inputs.json                 pre-image of the fingerprint: a diff of two says why one rebuilt
        manifest.json               digests and sizes of all files, facts, build time (manifest.py)
      stage/<kind>-<fingerprint>-*  builds under way, locked; a killed one leaves only this
      logs/<kind>-<name>.log        of the last build under this name, whatever came of it
      downloads/<sha256>            pinned files that were fetched (fetch.py)
      locks/<kind>-<fingerprint>    locked by who builds the object
      uses/<kind>-<fingerprint>     its time: when the object was last used; in it: which bytes were
                                    verified. Can be deleted: objects are only read once more then
      roots/<id>                    path of a checkout's artifacts/, whose links gc keeps

Rules. An object appears whole or not at all: it is built in a stage, digested, fsynced and renamed.
The store is the truth and doit's database is not. Two builders of one fingerprint wait for each
other; should both build after all, the first rename wins. An object that is not whole counts as
missing, and is dropped by the next build of it. Who uses an object holds a shared lock on its
directory, as long as the process lives; who drops one takes it exclusively (locks.py) and moves it
to a stage first. Only this module writes here, and what it stands on: manifest, layout, uses.

Costs: find is a few system calls, 0.2 ms, whatever the store holds; verifying reads an object once.
For a thousand objects, saying why one is built anew takes some 40 ms, once a build, gc 0.3 s, fsck
the same and the time to read all bytes. A commit syncs five small files, the payload
and two directories: beside the build itself not to be measured.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Literal

from fcbuild import progress
from fcbuild.errors import FcBuildError, StoreError
from fcbuild.fingerprint import SHORT, Json, canonical
from fcbuild.recipes import Recipe
from fcbuild.store import layout, locks, manifest
from fcbuild.store.links import link, links_to
from fcbuild.store.manifest import RECORDS, Artifact, Damaged
from fcbuild.store.uses import Uses

__all__ = ["Artifact", "Stage", "State", "Store", "link", "links_to"]

_META = {manifest.NAME, *RECORDS}
# The disk's refusals, which are nobody's bug.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG}
_FULL = {errno.ENOSPC, errno.EDQUOT}

State = Literal["built", "stored", "fetched"]


class Stage:
    """A private directory in which one object is being built, and its log.

    What is in `directory` when the build returns becomes the object; `scratch` is thrown away.
    gates: checks of what was made, which change nothing. They run after the build, while the store
    reads the files for their digests; what one raises fails the build. held: what is open until the
    object is committed, or given up.
    """

    def __init__(self, directory: Path, scratch: Path, log: IO[bytes], log_path: Path) -> None:
        self.directory = directory
        self.scratch = scratch
        self.log = log
        self.log_path = log_path
        self.facts: dict[str, Json] = {}
        self.gates: list[Callable[[], None]] = []
        self.held = contextlib.ExitStack()

    def file(self, name: str) -> Path:
        return self.directory / name


class Store:
    """All access to one store directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uses = Uses(root)
        self._known = False
        self._held: dict[Path, int] = {}  # object -> descriptor with a shared lock on it
        self._mutex = threading.Lock()

    def find(self, recipe: Recipe) -> Artifact | None:
        """Return the object of this recipe, or None, also for one that is not whole as far as can
        be seen without reading it. Raises StoreError for a store of another layout."""
        self._known = self._known or layout.check(self.root)
        found = _whole(self._object(recipe))
        return found and found._replace(name=recipe.name)

    def objects(self, kind: str) -> list[Artifact]:
        """Return all objects of a kind, the newest first."""
        found = []
        for directory in (self.root / "objects" / kind).glob("*"):
            if artifact := _whole(directory):
                found.append((directory.stat().st_mtime, artifact))
        return [artifact for _, artifact in sorted(found, key=lambda item: -item[0])]

    def hold(self, recipe: Recipe) -> Artifact | None:
        """Find the object of a recipe and keep it from being dropped while this process lives."""
        return self.find(recipe) if self.keep(self._object(recipe)) else None

    def keep(self, directory: Path) -> bool:
        """Keep an object from being dropped while this process lives; return whether it is there.
        Raises StoreError."""
        with self._mutex, self._writing():
            held = self._held.get(directory)
            if held is not None and not locks.names(directory, held):
                os.close(self._held.pop(directory))  # it was dropped, because it was not whole
            if directory not in self._held:
                lock = locks.share(directory)
                if lock is None:
                    return False
                self._held[directory] = lock
        self.uses.now(directory)
        return True

    def need(self, recipe: Recipe) -> Artifact:
        """Return the object of a recipe that another task stands on, held and verified. Raises
        StoreError."""
        found = self.hold(recipe)
        if found is None:
            raise StoreError(
                f"{recipe} {recipe.short} is not in the store", hint=f"doit {recipe} makes it"
            )
        if wrong := self._damage(found):
            raise StoreError(
                f"{recipe} {recipe.short} in the store is damaged: {wrong}",
                hint=f"doit fsck drops it; doit {recipe} builds it again",
            )
        return found

    def holding(
        self, kind: str, digests: Mapping[str, str], facts: Mapping[str, Json] | None = None
    ) -> Artifact | None:
        """Return an object of a kind whose files have these digests, held and verified, or None.

        facts: what it has to say of itself, None for whatever it says. Raises StoreError.
        """
        for found in self.objects(kind):
            if (
                digests.items() <= found.digests.items()
                and (facts is None or found.facts == facts)
                and self.keep(found.directory)
                and not self._damage(found)
            ):
                return found
        return None

    def obtain(
        self, recipe: Recipe, build: Callable[[Stage], None], *, verify: bool = False
    ) -> tuple[Artifact, State]:
        """Return the recipe's object, held, building it if the store lacks it or has not all of it.

        verify: read what is stored, unless that was done before, so that damaged bytes are built
        anew. A build that fails leaves nothing but its log. Raises StoreError, and what `build`
        raises.
        """
        if found := self._usable(recipe, verify=verify):
            return found, "stored"
        self._prepare()
        with self._lock(recipe), self._disk():
            if found := self._usable(recipe, verify=verify):
                return found, "stored"
            self._clear(recipe)
            started = time.monotonic()
            with self._stage(recipe) as stage:
                build(stage)
                self._commit(recipe, stage, seconds=time.monotonic() - started)
            if found := self._usable(recipe, verify=False):
                return found, "built"
        raise StoreError(f"{recipe} {recipe.short} was built and is gone again from {self.root}")

    def log_path(self, recipe: Recipe) -> Path:
        """Where the log of the last build under this name is; a whole object has its own copy."""
        return self.root / "logs" / f"{recipe.kind}-{recipe.name.replace('/', '-')}.log"

    @contextlib.contextmanager
    def log(self, recipe: Recipe) -> Iterator[IO[bytes]]:
        """Open the log of a build."""
        self._prepare()
        with self._writing():
            log = self.log_path(recipe).open("wb", buffering=0)
        with log:
            yield log

    # For gc and fsck, which decide what goes.

    def directories(self) -> list[Path]:
        """Return the directories of all objects, whole or not. Raises StoreError."""
        layout.check(self.root)
        return sorted(path for path in (self.root / "objects").glob("*/*") if path.is_dir())

    def roots(self) -> list[Path]:
        """Return the files that each hold the path of a checkout's artifacts/."""
        return sorted((self.root / "roots").glob("[!.]*"))

    def clear_lock(self, path: Path) -> bool:
        """Remove a lock file, unless somebody holds it; return whether it went. Raises
        StoreError."""
        with self._writing():
            lock = locks.claim(path)
            if lock is None:
                return False
            path.unlink(missing_ok=True)
            os.close(lock)
        return True

    def adopt(self, artifacts: Path) -> None:
        """Remember a checkout by its artifacts/, so that gc keeps what it links to. A store that
        cannot be written needs no gc."""
        text = os.fsencode(artifacts.resolve())
        entry = self.root / "roots" / hashlib.sha256(text).hexdigest()[:16]
        if not entry.exists() and (self.root / "objects").exists():
            with contextlib.suppress(OSError):
                entry.parent.mkdir(mode=0o700, exist_ok=True)
                layout.write(entry, text)

    def drop(self, directory: Path, *, used_after: float | None = None) -> bool:
        """Drop an object; return whether it was: not one in use.

        used_after: leave an object that was used after this time, too.
        Raises StoreError.
        """
        with self._writing():
            lock = locks.claim(directory)
            if lock is None:
                return False
            try:
                if used_after is not None and self.uses.time(directory) > used_after:
                    return False
                self._remove(directory)
            finally:
                os.close(lock)
        return True

    def clear_stage(self, stage: Path) -> bool:
        """Remove the stage of a build that was killed; return whether it is one: who lives holds
        its lock. Raises StoreError."""
        with self._writing():
            lock = locks.claim(stage)
            if lock is None:
                return False
            shutil.rmtree(stage, ignore_errors=True)
            os.close(lock)
        return True

    def discard(self, path: Path) -> None:
        """Remove a file or a directory that is no object: a foreign one, an abandoned stage, an old
        log. Raises StoreError."""
        with self._writing():
            if path.is_dir() and not path.is_symlink():
                self._remove(path)
            else:
                with layout.writable(path.parent):
                    path.unlink(missing_ok=True)

    def _usable(self, recipe: Recipe, *, verify: bool) -> Artifact | None:
        found = self.hold(recipe)
        return None if found is None or (verify and self._damage(found)) else found

    def _damage(self, artifact: Artifact) -> str | None:
        """Return what is wrong with an object's payload, reading it unless that was done before and
        its files are the same since."""
        if self.uses.verified(artifact):
            return None
        if wrong := next(manifest.damage(artifact), None):
            return wrong
        self.uses.now_verified(artifact)
        return None

    def _object(self, recipe: Recipe) -> Path:
        return self.root / "objects" / recipe.kind / recipe.fingerprint

    def _prepare(self) -> None:
        with self._writing():
            layout.prepare(self.root)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn the system's refusal to write here into ours."""
        try:
            yield
        except OSError as error:
            hint = "set FCBUILD_STORE to a directory of yours"
            if error.errno in _FULL:
                hint = "make room: doit gc, or set FCBUILD_STORE to a larger disk"
            if error.errno == errno.EMFILE:
                hint = "each object in use is an open file: raise the limit, ulimit -n"
            raise StoreError(
                f"the store {self.root} cannot be written: {error.strerror}", hint=hint
            ) from error

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a disk that is full or fails under a build into our error; other errors of the
        system are bugs. Where a tool met the full disk first, its error gets the hint."""
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK:
                raise
            with self._writing():
                raise
        except FcBuildError as error:
            if error.hint is None and layout.is_full(self.root):
                error.hint = f"the disk of {self.root} is full: doit gc makes room"
            raise

    @contextlib.contextmanager
    def _lock(self, recipe: Recipe) -> Iterator[None]:
        def waiting() -> None:
            progress.say(f"{recipe}: another process is building it, waiting ...")

        path = self.root / "locks" / f"{recipe.kind}-{recipe.fingerprint}"
        with contextlib.ExitStack() as held:
            with self._writing():
                held.enter_context(locks.exclusive(path, waiting=waiting))
            yield

    def _clear(self, recipe: Recipe) -> None:
        """Remove what would be in a build's way: an object that is not whole, and the stages of
        builds that were killed. No live build has one: it would hold the lock that we hold."""
        directory = self._object(recipe)
        with self._writing():
            for stage in (self.root / "stage").glob(f"{_prefix(recipe)}*"):
                self.clear_stage(stage)
            if os.path.lexists(directory):
                progress.say(f"{recipe}: {recipe.short} in the store is damaged: building it again")
                self._remove(directory)

    @contextlib.contextmanager
    def _own(self, prefix: str) -> Iterator[Path]:
        """Make a directory in stage/ that is locked while this lives, and removed then."""
        self._prepare()
        with contextlib.ExitStack() as undo:
            lock = None
            while lock is None:  # until it was locked before a gc found it unlocked
                with self._writing():
                    own = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root / "stage"))
                    undo.callback(shutil.rmtree, own, ignore_errors=True)
                    lock = locks.share(own)
            undo.callback(os.close, lock)
            yield own

    def _remove(self, path: Path) -> None:
        """Take a file or directory away in one step, then remove it."""
        with self._own("dropped-") as own, layout.writable(path.parent):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)  # a directory changes when it moves
            path.rename(own / "object")
            self.uses.forget(path)

    @contextlib.contextmanager
    def _stage(self, recipe: Recipe) -> Iterator[Stage]:
        with self._own(_prefix(recipe)) as own:
            directory, scratch = own / "object", own / "scratch"
            directory.mkdir()
            scratch.mkdir()
            with self.log(recipe) as log:
                stage = Stage(directory, scratch, log, self.log_path(recipe))
                with stage.held:
                    yield stage

    def _commit(self, recipe: Recipe, stage: Stage, *, seconds: float) -> None:
        from concurrent.futures import ThreadPoolExecutor

        stage.file("inputs.json").write_bytes(canonical(recipe.document))
        payload = sorted({path.name for path in stage.directory.iterdir()} - _META)
        with ThreadPoolExecutor(1) as pool:
            checks = [pool.submit(gate) for gate in stage.gates]
            files = manifest.describe(stage.directory, payload)
            for check in checks:
                check.result()
        shutil.copyfile(stage.log_path, stage.file("build.log"))
        text = manifest.sealed(
            {
                "kind": recipe.kind,
                "name": recipe.name,
                "fingerprint": recipe.fingerprint,
                "files": files,
                "records": manifest.describe(stage.directory, list(RECORDS)),
                "facts": stage.facts,
                "built_in_ms": round(seconds * 1000),
            }
        )
        stage.file(manifest.NAME).write_text(text)
        for path in stage.directory.iterdir():
            executable = path.stat().st_mode & 0o100
            path.chmod(0o555 if executable else 0o444)
            layout.sync(path)
        layout.sync(stage.directory)
        target = self._object(recipe)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Before it can be seen, so that nobody drops it before it is used.
        lock = locks.share(stage.directory)
        assert lock is not None
        try:
            stage.directory.rename(target)
        except OSError as error:
            os.close(lock)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            with self._mutex:
                self._held[target] = lock
            target.chmod(0o555)
            if artifact := _whole(target):
                self.uses.now_verified(artifact)
        layout.sync(target.parent)


def _prefix(recipe: Recipe) -> str:
    return f"{recipe.kind}-{recipe.fingerprint[:SHORT]}-"


def _whole(directory: Path) -> Artifact | None:
    with contextlib.suppress(Damaged):
        found = manifest.read(directory)
        if found and not any(manifest.flaws(found)):
            return found
    return None
