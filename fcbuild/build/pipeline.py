"""Make what the plan names: each method returns an artifact, building it and what it stands on
only where the store or the engine lacks it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, cast

from fcbuild import context, progress, reasons
from fcbuild.build import base, foreign, given, kernel, program, rootfs
from fcbuild.build.engine import Engine, no_registry
from fcbuild.errors import FcBuildError, InputChanged, SpecError
from fcbuild.plan import Plan
from fcbuild.reasons import History
from fcbuild.recipes import Recipe
from fcbuild.series import GivenKernel
from fcbuild.store import Artifact, Stage, State, Store

_REASONS = 3  # that are said aloud; plan shows all


class Cache(Protocol):
    """Where other builders' objects may be had, and ours be put. It never fails a build."""

    def restore(self, recipe: Recipe, stage: Stage) -> bool: ...

    def keep(self, recipe: Recipe, artifact: Artifact, scratch: Path) -> None: ...


class _NotThere(FcBuildError):
    """The cache lacks an object, and nobody asked for it to be built."""


class Pipeline:
    """Builds the recipes of one plan into one store, with one engine.

    cache: where to look before something is built, and to put what was. strict: whether to refuse
    what is not locked, instead of warning of it. jobs: how many compilers may run at a time; None
    for as many as there are processors.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        engine: Engine,
        *,
        cache: Cache | None = None,
        strict: bool = False,
        jobs: int | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.engine = engine
        self.cache = cache
        self.strict = strict
        self.jobs = jobs or os.cpu_count() or 1
        self._warned: set[str] = set()

    @property
    def downloads(self) -> Path:
        """Where fetched files are kept, under their sha256."""
        return self.store.root / "downloads"

    def workshop(self) -> kernel.Workshop:
        """Have what kernels are built with. The cache is beside the store: it is no part of it."""
        return kernel.Workshop(
            engine=self.engine,
            toolchain=self.toolchain(),
            downloads=self.downloads,
            cache=self.store.root.with_name(f"{self.store.root.name}-cache"),
            jobs=self.jobs,
        )

    def toolchain(self) -> str:
        """Have the toolchain image in the engine; return its tag."""
        if self.plan.locked(self.plan.toolchain) is None:
            self._unlocked(["fcbuild/build/toolchain.toml: its packages are not locked"])
        return self._base(self.plan.toolchain)

    def container(self, name: str) -> State:
        """Have the container image of images/NAME in the engine.

        The engine keeps the image; the store keeps its inputs and log, so that a later build can
        say what changed.
        """
        recipe = self.plan.container(name)
        self._unlocked(self.plan.unlocked(name))
        if recipe.kind == "base":
            held = self.engine.has(recipe.tag)
            self._base(recipe)
            return "stored" if held else "built"
        # The engine's images go with the store's objects, so they are in use alike.
        known = self.store.hold(recipe)
        if self.engine.has(recipe.tag):
            return "stored"
        for up in self.plan.upon(name):
            self.container(up)
        if known:  # the engine lost it
            with self.store.log(recipe) as log:
                self._dockerfile(name, recipe, log)
        else:
            self._obtain(recipe, lambda stage: self._dockerfile(name, recipe, stage.log))
        return "built"

    def program(self, recipe: Recipe) -> tuple[Artifact, State]:
        """Have one of our own programs: the plan's init or agent."""

        def build(stage: Stage) -> None:
            program.build(recipe, self.engine, self.toolchain(), stage)

        return self._obtain(recipe, build, verify=True)

    def kernel(self, name: str) -> tuple[Artifact, State]:
        spec = self.plan.specs.kernels[name]
        recipe = self.plan.kernel(name)

        def build(stage: Stage) -> None:
            if isinstance(spec, GivenKernel):
                image = self.plan.specs.images[spec.image]
                given.build(recipe, spec, image, self.downloads, stage)
            else:
                kernel.build(recipe, spec, self.workshop(), stage)

        return self._obtain(recipe, build)

    def rootfs(self, name: str) -> tuple[Artifact, State]:
        recipe = self.plan.rootfs(name)
        self._unlocked(self.plan.unlocked(name))

        def build(stage: Stage) -> None:
            self.container(name)
            rootfs.build(
                recipe,
                self.plan.specs.images[name],
                self.engine,
                image=self.plan.container(name).tag,
                toolchain=self.toolchain(),
                init=self.program(recipe.parent("init"))[0].file(program.BINARY["init"]),
                epoch=self.plan.epoch(name),
                stage=stage,
            )

        return self._obtain(recipe, build)

    def fetch(self, recipe: Recipe) -> Artifact | None:
        """Have an object that the cache may hold; None for one that would have to be built."""
        if self.cache is None:
            return None
        cache = self.cache

        def restore(stage: Stage) -> None:
            if not cache.restore(recipe, stage):
                raise _NotThere(f"{recipe} is not in the cache")

        try:
            return self.store.obtain(recipe, restore)[0]
        except _NotThere:
            return None

    def base(self, recipe: Recipe) -> Artifact:
        """Have the tar of a base, also where the engine holds its image."""
        artifact, _ = self._obtain(
            recipe, lambda stage: self._bootstrap(recipe, stage), verify=True
        )
        return artifact

    def unbuildable(self, name: str) -> str | None:
        """Return why images/NAME cannot be built here, or None; also where it need not be."""
        if self.engine.has(self.plan.container(name).tag):
            return None
        if why := foreign.trouble(self.plan.specs.images[name].arch):
            return why
        missing = self.unreachable(name)
        return missing and f"no registry answers for its base image {missing}"

    def unreachable(self, name: str) -> str | None:
        """Return the base image that NAME needs and that cannot be had here, or None.

        Asks the engine and, for what it does not hold, the registry.
        """
        spec = self.plan.specs.images[name]
        if spec.bootstrap is not None or self.engine.has(self.plan.container(name).tag):
            return None
        for ref in self.plan.references(name):
            if not ref.local and not self.engine.offers(self.plan.pinned(ref) or ref.name):
                return ref.name
        for up in self.plan.upon(name):
            if missing := self.unreachable(up):
                return missing
        return None

    def _base(self, recipe: Recipe) -> str:
        self.store.hold(recipe)
        if not self.engine.has(recipe.tag):
            arch = self.plan.bootstrap(recipe).arch
            base.load(self.engine, self.base(recipe), recipe.tag, arch)
        if self.strict:
            base.insist(self.store.find(recipe))
        return recipe.tag

    def _bootstrap(self, recipe: Recipe, stage: Stage) -> None:
        spec, locked = self.plan.bootstrap(recipe), self.plan.locked(recipe)
        base.build(recipe, spec, locked, stage, strict=self.strict)

    def _unlocked(self, found: Sequence[str]) -> None:
        """Say, once, what is not locked. Raises SpecError where that is not to be."""
        if found and self.strict:
            raise SpecError(found, hint="doit lock pins it; commit what it writes")
        for line in found:
            if line not in self._warned:
                self._warned.add(line)
                progress.say(f"warning: {line}; doit lock pins it")

    def _dockerfile(self, name: str, recipe: Recipe, log: IO[bytes]) -> None:
        spec = self.plan.specs.images[name]
        if missing := self.unreachable(name):
            raise no_registry(missing)
        text = self.plan.dockerfile(name)
        described = cast(Mapping[str, str], recipe.inputs["context"])

        apart = "dockerfile" in recipe.inputs  # it is not part of its context

        def send(out: IO[bytes]) -> None:
            context.write_tar(spec.directory, None if apart else text, out, described)

        def build() -> None:
            self.engine.build(
                send,
                recipe.tag,
                dockerfile=text if apart else None,
                args=self.plan.build_args(name),
                target=spec.build_target,
                platform=spec.platform,
                log=log,
                log_path=self.store.log_path(recipe),
                what=f"building images/{name}/Dockerfile",
            )

        foreign.insist(spec.arch)
        with progress.step(f"{recipe}: building images/{name}/Dockerfile"):
            try:
                build()
            except InputChanged as error:
                # Under this fingerprint only what it covers: perhaps the file is that again.
                progress.say(f"{recipe}: {error.message}; trying once more")
                build()

    def _obtain(
        self, recipe: Recipe, build: Callable[[Stage], None], *, verify: bool = False
    ) -> tuple[Artifact, State]:
        """verify: read what is stored, because another build is about to stand on it."""
        known, fetched = self.store.find(recipe) is not None, False

        def make(stage: Stage) -> None:
            nonlocal fetched
            fetched = self.cache is not None and self.cache.restore(recipe, stage)
            if fetched:
                return
            if not known:
                for line in reasons.why(recipe, self.plan, History(self.store))[:_REASONS]:
                    progress.say(f"{recipe}: {line}")
            build(stage)

        artifact, state = self.store.obtain(recipe, make, verify=verify)
        if fetched:
            return artifact, "fetched"
        if state == "built" and self.cache is not None:
            self.cache.keep(recipe, artifact, self.store.root / "stage")
        return artifact, state
