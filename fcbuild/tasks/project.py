"""doit's tasks, and how they hang together.

    _toolchain -+-> _init -----+
                |              +-> rootfs:NAME --+-> build
    _image:NAME ---------------+                 +-> boot
                +-> kernel:NAME -----------------+

An edge that is only needed to build is a `setup` edge: a stored rootfs asks for neither engine nor
toolchain. One that always holds is a `task_dep`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit import get_var

from fcbuild import digests, lock, spec
from fcbuild.build import foreign
from fcbuild.digests import Digests
from fcbuild.errors import SpecError
from fcbuild.plan import KVM_HOST, Plan
from fcbuild.recipes import Kind, Recipe, product
from fcbuild.series import ARCHITECTURES, X86_64, for_arch
from fcbuild.store import Artifact, State, Store, layout, link, links_to
from fcbuild.tasks import command_line, commands, exports, releases, trust
from fcbuild.tasks.action import act, asked

if TYPE_CHECKING:
    from fcbuild.build.pipeline import Pipeline
    from fcbuild.instance import Instance
    from fcbuild.publish.cache import Cache

Task = dict[str, Any]

# doit would collect what a task prints until it ends, and mix up tasks that run side by side.
OPEN: Task = {"io": {"capture": False}, "verbosity": 2}


def _command(function: Callable[..., Any], *args: Any) -> Task:
    """A task that does its work each time it is asked for."""
    return {"actions": [partial(act, function, *args)], "uptodate": [False], **OPEN}


class Project:
    """A checkout: its specs, its store, and the tasks that follow from them.

    Made on each run of doit, `doit list` too, so it reads image.toml, kernel.toml and Dockerfiles
    and nothing else; contexts are hashed and engines asked only by the tasks that need it.
    """

    def __init__(self, root: Path, *, default_image: str) -> None:
        command_line.check_variables(sys.argv[1:])
        if not (root / "images").is_dir():
            raise SpecError([f"{root} has no images/"], hint="FCBUILD_PROJECT names its directory")
        self.root = root
        self.artifacts = root / "artifacts"
        try:
            self.artifacts.mkdir(exist_ok=True)
        except OSError as error:
            raise SpecError([f"{self.artifacts} cannot be made: {error.strerror}"]) from error
        store = os.environ.get("FCBUILD_STORE")
        self.store = Store(layout.place(store) if store else self.artifacts / "store")
        self.digests = Digests(self.artifacts / digests.FILE)
        barred = (self.artifacts, self.store.root)
        self.plan = Plan(spec.load(root), digests=self.digests, barred=barred)
        # What happened to each product in this run: built, or reused.
        self.states: dict[str, State] = {}
        self.skipped: dict[str, str] = {}
        wanted = get_var("image")
        images = self.plan.specs.images
        self.wanted = spec.select(wanted, images, what="image")
        self.named = wanted is not None
        default = [default_image] if default_image in images else self.plan.bootable()
        self.to_boot = self.wanted if self.named else default
        # Whether nothing may be built that is not locked.
        self.strict = lock.insisted(os.environ)
        self.kvm = command_line.choice_of("kvm", command_line.KVM_CHOICES)
        self.reader = command_line.choice_of("reader", command_line.READERS)
        series = get_var("kernel")
        known = self.plan.specs.series_names
        self.series = series and spec.select(series, known, what="kernel series")
        self.source: str | None = get_var("from")
        if self.source is not None:
            from fcbuild.publish import reference

            reference.parse(self.source, what="from")
        self.instance = self.read_instance(get_var("instance"))
        # A FROM that cannot be is a mistake in a spec, so it is reported before anything runs.
        for name in images:
            self.plan.upon(name)

    def read_instance(self, path: str | None) -> Instance | None:
        """Read the instance's document, if one is named. Raises SpecError."""
        if path is None:
            return None
        from fcbuild import instance

        if len(self.to_boot) > 1:
            raise SpecError(
                [f"instance={path} is for one VM, not for {', '.join(self.to_boot)}"],
                hint="name one image: image=NAME",
            )
        return instance.load(Path(path))

    @cached_property
    def pipeline(self) -> Pipeline:
        from fcbuild.build.engine import Docker
        from fcbuild.build.pipeline import Pipeline

        return Pipeline(self.plan, self.store, Docker(), cache=self.cache, strict=self.strict)

    @cached_property
    def cache(self) -> Cache | None:
        """What builders share, where the environment names one. Raises SpecError."""
        if not os.environ.get("FCBUILD_CACHE"):
            return None  # and no module of it need be loaded
        from fcbuild.publish import cache

        return cache.asked(os.environ, self.store.root / "downloads")

    def host_tasks(self) -> list[str]:
        """Return the tasks that make what Firecracker runs in, where that is an emulated host."""
        return [f"kernel:{KVM_HOST}", "_agent"] if self.emulated else []

    @cached_property
    def emulated(self) -> bool:
        """Whether Firecracker will run in an emulated KVM host."""
        from fcbuild.vmm import kvm

        return self.kvm == "emulated" or (self.kvm is None and kvm.trouble() is not None)

    # The tasks, in the order of `doit list`.

    def build(self) -> Task:
        images = [name for name in self.wanted if name in self.plan.bootable()]
        bases = [name for name in self.wanted if name not in images] if self.named else []
        specs = [self.plan.specs.images[name] for name in images]
        # Not the kernel of an image that is going to be left out, which takes minutes.
        kernels = {one.kernel for one in specs if self.named or foreign.trouble(one.arch) is None}
        return {
            "actions": None,
            "task_dep": [
                *(f"kernel:{name}" for name in sorted(kernels)),
                *(f"rootfs:{name}" for name in images),
                *(f"_image:{name}" for name in bases),
            ],
            # It does nothing of its own; doit would note each time that it did, and sync the note.
            "uptodate": [True],
        }

    def boot(self) -> Task:
        if self.source is not None:
            return self.boot_published(self.source)
        bases = [name for name in self.to_boot if name not in self.plan.bootable()]
        if bases:
            return {"actions": [partial(act, self.refuse, bases)], "uptodate": [False], **OPEN}
        kernels = {self.plan.specs.images[name].kernel for name in self.to_boot}
        firecracker = any(self.plan.specs.images[name].arch == X86_64 for name in self.to_boot)
        host = self.host_tasks() if firecracker else []
        return {
            "actions": [partial(act, commands.boot, self, name) for name in self.to_boot],
            "task_dep": [
                *(f"kernel:{name}" for name in sorted(kernels)),
                *host,
                *(f"rootfs:{name}" for name in self.to_boot),
            ],
            "uptodate": [False],
            **OPEN,
        }

    def boot_published(self, source: str) -> Task:
        if self.named:
            return {"actions": [partial(act, self.refuse_both, source)], "uptodate": [False]}
        return {
            "actions": [partial(act, releases.boot, self, source)],
            "task_dep": self.host_tasks(),
            "uptodate": [False],
            **OPEN,
        }

    def verify_artifact(self, *, as_json: bool) -> Task:
        return _command(trust.verify_artifact, self, as_json)

    def publish(self) -> Task:
        return _command(releases.publish, self)

    def kernels(self) -> Iterator[Task]:
        for name, kernel in self.plan.specs.kernels.items():
            yield self.product(
                "kernel",
                name,
                partial(self.plan.kernel, name),
                partial(self.make_kernel, name),
                setup=["_toolchain"],
                doc=kernel.description,
                arch=kernel.arch,
            )

    def rootfses(self) -> Iterator[Task]:
        for name in self.plan.bootable():
            image = self.plan.specs.images[name]
            yield self.product(
                "rootfs",
                name,
                partial(self.plan.rootfs, name),
                partial(self.make_rootfs, name),
                setup=["_toolchain", for_arch("_init", image.arch), f"_image:{name}"],
                doc=image.description,
                arch=image.arch,
                image=name,
            )

    def images(self) -> Iterator[Task]:
        for name, image in self.plan.specs.images.items():
            yield {
                "name": name,
                "doc": f"container image: {image.description}",
                "actions": [partial(act, self.make_image, name)],
                "setup": [f"_image:{up}" for up in self.plan.upon(name)],
                **OPEN,
                "uptodate": [partial(asked, partial(self.image_held, name))],
            }

    def toolchain(self) -> Task:
        return {
            "actions": [partial(act, lambda: self.pipeline.toolchain() and None)],
            **OPEN,
            "uptodate": [partial(asked, lambda: self.held(self.plan.toolchain))],
        }

    def inits(self) -> Iterator[Task]:
        for arch in ARCHITECTURES:
            task = self.program(partial(self.plan.init_for, arch))
            yield {"basename": for_arch("_init", arch), **task}

    def program(self, recipe: Callable[[], Recipe]) -> Task:
        def make() -> Task:
            _, state = self.pipeline.program(recipe())
            return self.made(recipe(), state)

        def current() -> bool:
            return self.store.find(recipe()) is not None or self.fetch(recipe()) is not None

        return {
            "actions": [partial(act, make)],
            "setup": ["_toolchain"],
            **OPEN,
            "uptodate": [partial(asked, current)],
        }

    def lock(self, *, check: bool) -> Task:
        return _command(commands.lock, self, check)

    def show_plan(self, *, as_json: bool, matrix: bool) -> Task:
        form = "matrix" if matrix else "json" if as_json else "text"
        return _command(commands.plan, self, form)

    def inspect(self, *, as_json: bool) -> Task:
        return _command(commands.inspect, self, as_json)

    def diff(self, *, everything: bool, as_json: bool) -> Task:
        return _command(commands.diff, self, everything, as_json)

    def reproduce(self, *, kernels: bool, everything: bool, as_json: bool) -> Task:
        return _command(commands.reproduce, self, kernels, everything, as_json)

    def config(self) -> Task:
        return _command(exports.config, self)

    def curl(self) -> Task:
        return _command(exports.curl, self)

    def export(self) -> Task:
        return _command(exports.export, self)

    def gc(self, *, dry_run: bool, as_json: bool) -> Task:
        return _command(commands.gc, self, dry_run, as_json)

    def fsck(self, *, dry_run: bool, as_json: bool) -> Task:
        return _command(commands.fsck, self, dry_run, as_json)

    def product(
        self,
        kind: Kind,
        name: str,
        recipe: Callable[[], Recipe],
        make: Callable[[], tuple[Artifact, State]],
        *,
        setup: list[str],
        doc: str,
        arch: str,
        image: str | None = None,
    ) -> Task:
        """A task whose product is one file of one object of the store, with a link to it."""
        file, place = product(kind, name, arch)
        at = self.artifacts / place
        # What the reporter says of a product that need not be made.
        meta: dict[str, str] = {}

        def run() -> Task:
            if image is not None and self.skip(image):
                return {"state": "skipped", "note": self.skipped[image]}
            artifact, state = make()
            self.store.adopt(self.artifacts)
            link(artifact, file, at)
            return self.made(recipe(), state)

        def current() -> bool:
            if image is not None and self.refused(image):
                return False
            found = self.store.find(recipe())
            if found is None and (found := self.fetch(recipe())):
                meta.update(state="fetched", note=recipe().short)
                link(found, file, at)
            if found is None:
                return False
            self.store.adopt(self.artifacts)
            if not links_to(at, found, file):
                if self.store.hold(recipe()) is None:  # a gc was quicker than the link
                    return False
                # Here, because what comes before an action asks the engine for what it was made of.
                meta.update(state="restored" if at.is_symlink() else "stored", note=recipe().short)
                link(found, file, at)
            self.states[str(recipe())] = "stored"
            return True

        return {
            "name": name,
            "doc": doc,
            "actions": [partial(act, run)],
            "setup": setup,
            "targets": [str(at)],
            **OPEN,
            "uptodate": [partial(asked, current)],
            "meta": meta,
            "clean": [partial(at.unlink, missing_ok=True)],
        }

    # What the tasks do.

    def made(self, recipe: Recipe, state: State) -> Task:
        self.states[str(recipe)] = state
        return {"state": state, "note": recipe.short}

    def make_image(self, name: str) -> Task | None:
        if self.skip(name):
            return None  # rootfs:NAME says it
        return self.made(self.plan.container(name), self.pipeline.container(name))

    def make_kernel(self, name: str) -> tuple[Artifact, State]:
        return self.pipeline.kernel(name)

    def make_rootfs(self, name: str) -> tuple[Artifact, State]:
        return self.pipeline.rootfs(name)

    def fetch(self, recipe: Recipe) -> Artifact | None:
        """Have from the cache, where there is one, what the store lacks."""
        return self.pipeline.fetch(recipe) if self.cache else None

    def image_held(self, name: str) -> bool:
        return not self.refused(name) and self.held(self.plan.container(name))

    def refused(self, name: str) -> bool:
        """Whether building an image ends in an error about its lock, also when it is there."""
        return self.strict and bool(self.plan.unlocked(name))

    def held(self, recipe: Recipe) -> bool:
        return self.pipeline.engine.has(recipe.tag)

    def skip(self, name: str) -> bool:
        """Whether to leave an image out: nobody asked for it by name, and it cannot be built here,
        because its base is not to be had or its programs do not run."""
        if self.named or name in self.skipped:
            return name in self.skipped
        if why := self.pipeline.unbuildable(name):
            self.skipped[name] = why
        return name in self.skipped

    def refuse_both(self, source: str) -> None:
        raise SpecError(
            [f"image= and from={source}: boot one or the other"],
            hint="from= boots what a registry has, image= what is in images/",
        )

    def refuse(self, names: list[str]) -> None:
        raise SpecError(
            [
                f"{name} is a base for other images: it has no root filesystem to boot"
                for name in names
            ],
            hint=f"bootable: {', '.join(self.plan.bootable())}",
        )
