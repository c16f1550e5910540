"""Ask registries and archives what tags and package names mean now: the work of `doit lock`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from fcbuild import progress
from fcbuild.build import base, foreign
from fcbuild.build.engine import Engine
from fcbuild.errors import CommandFailed, SourceError
from fcbuild.lock import Lock, LockedBase, LockedImage
from fcbuild.plan import Plan
from fcbuild.recipes import Recipe
from fcbuild.spec import Bootstrap
from fcbuild.store import Stage, Store


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What registries and archives said.

    images, toolchain: the two lock documents as they should be now. tars: the root filesystems that
    were made to learn the packages of a base that moved, by the base's name; None for the
    toolchain's. silent: who gave no answer, and why; the old entry stays there.
    """

    images: Lock
    toolchain: Lock
    tars: Mapping[str | None, Path]
    silent: tuple[str, ...]


def ask(
    plan: Plan,
    store: Store,
    engine: Engine,
    *,
    names: Collection[str],
    toolchain: bool,
    scratch: Path,
) -> Answer:
    """Ask anew for what the named images stand on, and for the toolchain's packages where that is
    wanted. Other entries are kept, but for those that nothing uses any more.

    scratch: a directory for the tars of the answer. Raises ToolMissing.
    """
    question = _Question(store, engine, scratch)
    specs, old = plan.specs.images, plan.specs.lock
    asked = {ref.name for name in names for ref in plan.tags(name)}
    images: dict[str, LockedImage] = {}
    for reference in sorted({ref.name for name in specs for ref in plan.tags(name)}):
        image = old.images.get(reference)
        if reference in asked:
            image = question.image(reference, image)
        if image:
            images[reference] = image
    bases: dict[str, LockedBase] = {}
    for name, spec in specs.items():
        if spec.bootstrap is not None:
            locked = old.bases.get(name)
            if name in names:
                locked = question.base(name, plan.container(name), spec.bootstrap, locked)
            if locked:
                bases[name] = locked
    own = dict(plan.toolchain_lock.bases)
    if toolchain:
        recipe = plan.toolchain
        found = question.base(None, recipe, plan.bootstrap(recipe), own.get(recipe.name))
        own = {recipe.name: found} if found else {}
    return Answer(
        images=Lock(images=images, bases=bases),
        toolchain=Lock(bases=own),
        tars=question.tars,
        silent=tuple(question.silent),
    )


def keep(plan: Plan, store: Store, answer: Answer) -> None:
    """Put what was made to learn a base's packages into the store, as the base of this plan, which
    is the one under the new lock: a build would make the same bytes again."""
    for name, tar in answer.tars.items():

        def move(stage: Stage, tar: Path = tar) -> None:
            shutil.move(tar, stage.file(base.TAR))

        store.obtain(plan.toolchain if name is None else plan.container(name), move)


class _Question:
    def __init__(self, store: Store, engine: Engine, scratch: Path) -> None:
        self.store = store
        self.engine = engine
        self.scratch = scratch
        self.now = int(time.time())
        self.tars: dict[str | None, Path] = {}
        self.silent: list[str] = []

    def image(self, reference: str, old: LockedImage | None) -> LockedImage | None:
        """Return what a tag's entry should be now."""
        try:
            digest = self.engine.digest(reference)
        except SourceError as error:
            self.silent.append(error.message)
            return old
        new = LockedImage(digest=digest, time=self.now)
        return old if old and new._replace(time=old.time) == old else new

    def base(
        self, name: str | None, recipe: Recipe, spec: Bootstrap, old: LockedBase | None
    ) -> LockedBase | None:
        """Return what a base's entry should be now, by bootstrapping it: what comes of a list of
        names is not known before, as dependencies have alternatives."""
        if why := foreign.trouble(spec.arch):
            self.silent.append(f"{recipe}: {why}")
            return old
        tar = self.scratch / f"{len(self.tars)}.tar"
        try:
            with (
                progress.step(f"{recipe}: bootstrapping {spec.suite} to learn its packages"),
                self.store.log(recipe) as log,
            ):
                path = self.store.log_path(recipe)
                base.bootstrap(spec, tar, epoch=self.now, pins={}, log=log, log_path=path)
        except CommandFailed as error:
            self.silent.append(f"{recipe}: {error.message}")
            return old
        new = LockedBase(
            suite=spec.suite,
            asked=tuple(sorted(spec.packages)),
            packages=base.installed(tar),
            time=self.now,
            arch=spec.arch,
        )
        if old and new._replace(time=old.time) == old:
            tar.unlink()
            return old
        self.tars[name] = tar
        return new
