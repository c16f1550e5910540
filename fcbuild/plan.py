"""Turn specs into recipes: what would be built, from which inputs, under which fingerprint.

Pure: reads specs, contexts and our own sources; never builds, needs no engine and no network.
A recipe's fingerprint covers its parents' fingerprints, so the whole plan is known up front.

    base image ----> container image ---\\
    toolchain --+--> init --------------+--> rootfs ---+
                +--> kernel ----------------------------+--> boot
                +--> kvm-host agent --------------------+
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from fcbuild import context, dockerfile, fingerprint, lock
from fcbuild.dockerfile import Reference
from fcbuild.errors import SpecError, did_you_mean
from fcbuild.ext4 import form
from fcbuild.fingerprint import SHORT, Json
from fcbuild.lock import Lock, LockedBase
from fcbuild.spec import Bootstrap, ImageSpec, KernelSpec, Specs, bootstrap

Kind = Literal["base", "container", "kernel", "init", "agent", "rootfs"]

# Raise a kind's number when its builder makes other bytes from the same inputs.
SCHEMA: Mapping[Kind, int] = {
    "base": 2,
    "container": 1,
    "kernel": 1,
    "init": 1,
    "agent": 1,
    "rootfs": 4,
}

BOOT_CONTRACT = 2  # fcbuild/guest/BOOT_CONTRACT.md

# https://reproducible-builds.org/specs/source-date-epoch/
EPOCH_ARG = "SOURCE_DATE_EPOCH"

PACKAGE = Path(__file__).parent
TOOLCHAIN = "toolchain"
TOOLCHAIN_SPEC = PACKAGE / "build" / "toolchain.toml"
TOOLCHAIN_LOCK = PACKAGE / "build" / lock.FILE
KVM_HOST = "kvm-host"  # the kernel of kernels/ that an emulated KVM host runs


@dataclass(frozen=True)
class Recipe:
    """One artifact to have: its inputs, and the artifacts it is made from.

    mark: tells its image in the engine from that of another build of the same recipe.
    """

    kind: Kind
    name: str
    inputs: Mapping[str, Json]
    parents: tuple[Recipe, ...] = ()
    mark: str = ""

    @cached_property
    def document(self) -> dict[str, Json]:
        """The inputs with the parents' fingerprints: the pre-image of the fingerprint."""
        parents: dict[str, Json] = {str(parent): parent.fingerprint for parent in self.parents}
        return {**self.inputs, "parents": parents}

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint.fingerprint(self.kind, SCHEMA[self.kind], self.document)

    @property
    def short(self) -> str:
        return self.fingerprint[:SHORT]

    @property
    def tag(self) -> str:
        """How the container engine knows the image that this recipe makes."""
        return f"{dockerfile.LOCAL}{self.name}:{self.short}{self.mark}"

    def parent(self, kind: Kind) -> Recipe:
        """Return the one parent of this kind."""
        (found,) = (parent for parent in self.parents if parent.kind == kind)
        return found

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class Plan:
    """The recipes of a checkout. Each is worked out once, when first asked for.

    mark: of its images in the engine, so that it holds none of them yet.
    """

    def __init__(self, specs: Specs, *, mark: str = "") -> None:
        self.specs = specs
        self.mark = mark
        self._containers: dict[str, Recipe] = {}

    @cached_property
    def toolchain(self) -> Recipe:
        spec = bootstrap(TOOLCHAIN_SPEC)
        made = base(TOOLCHAIN, spec, _current(self.toolchain_lock, TOOLCHAIN, spec))
        return replace(made, mark=self.mark)

    @cached_property
    def toolchain_lock(self) -> Lock:
        """The toolchain's own lock. Raises SpecError."""
        problems: list[str] = []
        found = lock.read(TOOLCHAIN_LOCK, f"fcbuild/build/{lock.FILE}", problems)
        if problems:
            raise SpecError(problems)
        return found

    @cached_property
    def init(self) -> Recipe:
        """The guest's PID 1."""
        return self._sources("init", "guest")

    @cached_property
    def agent(self) -> Recipe:
        """The only program of an emulated KVM host."""
        return self._sources("agent", "kvmhost")

    def bootstrap(self, recipe: Recipe) -> Bootstrap:
        """Return what a base recipe is bootstrapped from."""
        spec = self.specs.images[recipe.name].bootstrap if recipe is not self.toolchain else None
        return spec or bootstrap(TOOLCHAIN_SPEC)

    def locked(self, recipe: Recipe) -> LockedBase | None:
        """Return what a base recipe is locked to, or None."""
        which = self.toolchain_lock if recipe is self.toolchain else self.specs.lock
        return _current(which, recipe.name, self.bootstrap(recipe))

    def kernel(self, name: str) -> Recipe:
        return kernel(self.specs.kernels[name], self.toolchain)

    def container(self, name: str, _upon: tuple[str, ...] = ()) -> Recipe:
        """The container image of images/NAME. Raises SpecError for a FROM that cannot be."""
        if name in _upon:
            raise SpecError([f"images that are FROM each other: {' -> '.join((*_upon, name))}"])
        if name not in self._containers:
            spec = self.specs.images[name]
            if spec.bootstrap is not None:
                locked = self._locked(name, spec.bootstrap)
                made = base(name, spec.bootstrap, locked)
            else:
                parents = [self.container(up, (*_upon, name)) for up in self.upon(name)]
                digests = {ref.name: self._digest(ref) for ref in tags(spec)}
                made = container(spec, parents, digests, self.build_args(name))
            self._containers[name] = replace(made, mark=self.mark)
        return self._containers[name]

    def upon(self, name: str) -> list[str]:
        """Return the images of images/ that NAME is built upon. Raises SpecError."""
        spec = self.specs.images[name]
        found: dict[str, None] = {}
        for ref in (dockerfile.local_name(ref.name) for ref in references(spec) if ref.local):
            if ref not in self.specs.images:
                near = did_you_mean(ref, self.specs.images)
                raise SpecError(
                    [f"images/{name}/Dockerfile: {dockerfile.LOCAL}{ref}: no images/{ref}{near}"],
                    hint=f"{dockerfile.LOCAL}NAME stands for the image NAME of images/",
                )
            found[ref] = None
        return list(found)

    def dockerfile(self, name: str) -> str:
        """Return the Dockerfile of images/NAME as the engine gets it: with images in place of
        names."""
        spec = self.specs.images[name]
        return dockerfile.pin(read_dockerfile(spec), spec.build_args, self.pinned)

    def pinned(self, ref: Reference) -> str | None:
        """Return the one image that a reference stands for, or None for what is not locked."""
        if ref.local:
            return self.container(dockerfile.local_name(ref.name)).tag
        digest = self._digest(ref) if ref.tagged else None
        return digest and f"{ref.name}@{digest}"

    def unlocked(self, name: str) -> list[str]:
        """Return what images/NAME stands upon, near and far, that is not locked: a line for each.

        A base is not locked either when its [bootstrap] says otherwise than when it was.
        """
        spec = self.specs.images[name]
        if spec.bootstrap is not None:
            locked = self._locked(name, spec.bootstrap)
            return [] if locked else [f"images/{name}/image.toml: its packages are not locked"]
        text = read_dockerfile(spec)
        found = [
            f"images/{name}/Dockerfile:{ref.line(text)}: {ref.name} is not locked"
            for ref in tags(spec)
            if self._digest(ref) is None
        ]
        for up in self.upon(name):
            found += self.unlocked(up)
        return list(dict.fromkeys(found))

    def epoch(self, name: str) -> int:
        """Return the time of images/NAME, in seconds since 1970: when the newest of what it stands
        upon was locked. No file of its root filesystem is newer."""
        spec = self.specs.images[name]
        if spec.bootstrap is not None:
            locked = self._locked(name, spec.bootstrap)
            return locked.time if locked else context.EPOCH
        entries = [self.specs.lock.images.get(ref.name) for ref in tags(spec)]
        times = [entry.time for entry in entries if entry]
        return max([*times, *map(self.epoch, self.upon(name))], default=context.EPOCH)

    def build_args(self, name: str) -> dict[str, str]:
        """Return the ARGs that the Dockerfile of images/NAME is built with: its own, and the time
        of the image under the name that BuildKit and many programs know."""
        return {EPOCH_ARG: str(self.epoch(name)), **self.specs.images[name].build_args}

    def rootfs(self, name: str) -> Recipe:
        epoch = self.epoch(name)
        return rootfs(self.specs.images[name], self.container(name), self.init, epoch)

    def bootable(self) -> list[str]:
        """Return the images that become root filesystems: all but the bootstrapped bases."""
        return [name for name, spec in self.specs.images.items() if spec.bootstrap is None]

    def all(self) -> Iterable[Recipe]:
        """Every recipe of the checkout, parents before children."""
        yield self.toolchain
        yield self.init
        yield self.agent
        yield from map(self.kernel, self.specs.kernels)
        yield from (self.container(name) for name in self.specs.images if self._is_base(name))
        yield from map(self.rootfs, self.bootable())

    def _locked(self, name: str, spec: Bootstrap) -> LockedBase | None:
        return _current(self.specs.lock, name, spec)

    def _digest(self, ref: Reference) -> str | None:
        entry = self.specs.lock.images.get(ref.name)
        return entry.digest if entry else None

    def _is_base(self, name: str) -> bool:
        return self.specs.images[name].bootstrap is not None

    def _sources(self, kind: Literal["init", "agent"], directory: str) -> Recipe:
        root = PACKAGE / directory
        sources = sorted([*root.glob("*.[ch]"), root / "Makefile"])
        tree = fingerprint.tree(root, sources)
        return Recipe(kind, directory, {"sources": tree}, (self.toolchain,))


def base(name: str, spec: Bootstrap, locked: LockedBase | None) -> Recipe:
    return Recipe(
        "base",
        name,
        {
            "suite": spec.suite,
            "packages": sorted(spec.packages),
            "arch": "amd64",
            "lock": {"time": locked.time, "packages": dict(locked.packages)} if locked else None,
        },
    )


def container(
    spec: ImageSpec,
    parents: Iterable[Recipe],
    digests: Mapping[str, str | None],
    args: Mapping[str, str],
) -> Recipe:
    return Recipe(
        "container",
        spec.name,
        {
            "context": fingerprint.tree(spec.directory, context.files(spec.directory)),
            "args": dict(args),
            "target": spec.build_target,
            "platform": "linux/amd64",
            "images": dict(digests),
        },
        tuple(parents),
    )


def kernel(spec: KernelSpec, toolchain: Recipe) -> Recipe:
    return Recipe(
        "kernel",
        spec.name,
        {
            "arch": spec.arch,
            "sources": [
                {"version": source.version, "sha256": source.sha256} for source in spec.sources
            ],
            "fragments": {path.name: fingerprint.describe(path) for path in spec.fragments},
            "order": [path.name for path in spec.fragments],
        },
        (toolchain,),
    )


def rootfs(spec: ImageSpec, image: Recipe, init: Recipe, epoch: int) -> Recipe:
    return Recipe(
        "rootfs",
        spec.name,
        {
            "boot_contract": BOOT_CONTRACT,
            "ext4": dict(form.PARAMETERS),
            "epoch": epoch,
            "hostname": spec.hostname,
            "size": spec.size,
            "free": spec.free,
            "stop_grace": spec.stop_grace,
            "init": spec.init,
            "readonly": spec.readonly,
            "overlay": spec.overlay,
            "overlay_size": spec.overlay_size,
            "writable": list(spec.writable),
            "network": [list(record) for record in spec.network.records()],
        },
        (image, init),
    )


def references(spec: ImageSpec) -> list[Reference]:
    """Return the images that an image's Dockerfile names. Raises SpecError."""
    if spec.bootstrap is not None:
        return []
    return dockerfile.references(read_dockerfile(spec), spec.build_args)


def tags(spec: ImageSpec) -> list[Reference]:
    """Return the references of a Dockerfile that need a lock to stay what they are."""
    return [ref for ref in references(spec) if ref.tagged]


def read_dockerfile(spec: ImageSpec) -> str:
    """Return the text of an image's Dockerfile. Raises SpecError."""
    path = spec.directory / "Dockerfile"
    try:
        # Not read_text: line ends stay as they are. The engine skips a byte order mark too.
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([f"images/{spec.name}/Dockerfile: cannot be read: {error}"]) from error


def _current(which: Lock, name: str, spec: Bootstrap) -> LockedBase | None:
    """Return the lock of a base, unless the base was asked to be something else then."""
    entry = which.bases.get(name)
    asked = (spec.suite, tuple(sorted(spec.packages)))
    return entry if entry and (entry.suite, entry.asked) == asked else None


def explain(old: Json, new: Json, path: str = "") -> list[str]:
    """Return what differs between two pre-images, one line for each key."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in sorted(set(old) | set(new)):
            where = f"{path}{key}"
            if key not in old:
                lines.append(f"added: {where}")
            elif key not in new:
                lines.append(f"removed: {where}")
            else:
                lines += explain(old[key], new[key], f"{where}/")
        return lines
    return [] if old == new else [f"changed: {path.rstrip('/')}"]
