"""Turn specs into recipes: what would be built, from which inputs, under which fingerprint.

Pure: reads specs, contexts and our own sources; never builds, needs no engine and no network.
A recipe's fingerprint covers its parents' fingerprints, so the whole plan is known up front.

    base image ----> container image ---\\
    toolchain --+--> init --------------+--> rootfs ---+
                +--> kernel ----------------------------+--> boot
                +--> kvm-host agent --------------------+
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal

from fcbuild import context, dockerfile, fingerprint, lock, recipes
from fcbuild.digests import Digests
from fcbuild.dockerfile import Reference
from fcbuild.errors import InputChanged, SpecError, did_you_mean
from fcbuild.fingerprint import Json
from fcbuild.lock import Lock, LockedBase
from fcbuild.recipes import Recipe
from fcbuild.series import X86_64, GivenKernel, for_arch
from fcbuild.spec import Bootstrap, ImageSpec, Specs, bootstrap

# https://reproducible-builds.org/specs/source-date-epoch/
EPOCH_ARG = "SOURCE_DATE_EPOCH"

PACKAGE = Path(__file__).parent
TOOLCHAIN = "toolchain"
TOOLCHAIN_SPEC = PACKAGE / "build" / "toolchain.toml"
TOOLCHAIN_LOCK = PACKAGE / "build" / lock.FILE
GUEST, KVMHOST = "guest", "kvmhost"  # directories of our own programs
# Of the link between QEMU's guests and this host, for guests that are not KVM hosts.
LINK_SOURCES = ("config.h", "mux.c", "mux.h")
KVM_HOST = "kvm-host"  # the kernel of kernels/ that an emulated KVM host runs


class Plan:
    """The recipes of a checkout. Each is worked out once, when first asked for.

    digests: what is known of files from earlier runs. barred: where this program writes, which no
    build context may hold. mark: of its images in the engine, so that it holds none of them yet.
    """

    def __init__(
        self,
        specs: Specs,
        *,
        digests: Digests | None = None,
        barred: Collection[Path] = (),
        mark: str = "",
    ) -> None:
        self.specs = specs
        self.mark = mark
        self._digests = digests or Digests()
        self._barred = barred
        self._containers: dict[str, Recipe] = {}
        self._inits: dict[str, Recipe] = {}
        self._texts: dict[str, bytes] = {}

    @cached_property
    def toolchain(self) -> Recipe:
        spec = bootstrap(TOOLCHAIN_SPEC)
        made = recipes.base(TOOLCHAIN, spec, _current(self.toolchain_lock, TOOLCHAIN, spec))
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
        """The guest's PID 1 on x86-64."""
        return self._program("init", GUEST, _sources(GUEST))

    @cached_property
    def agent(self) -> Recipe:
        """The only program of an emulated KVM host."""
        return self._program("agent", KVMHOST, _sources(KVMHOST))

    def init_for(self, arch: str) -> Recipe:
        """The guest's PID 1. What is not x86-64 may have to do without vsock, and has another link
        besides."""
        if arch == X86_64:
            return self.init
        if arch not in self._inits:
            sources = [*_sources(GUEST), *(f"../{KVMHOST}/{name}" for name in LINK_SOURCES)]
            made = self._program("init", GUEST, sources)
            self._inits[arch] = replace(
                made, name=for_arch(GUEST, arch), inputs={**made.inputs, "arch": arch}
            )
        return self._inits[arch]

    def bootstrap(self, recipe: Recipe) -> Bootstrap:
        """Return what a base recipe is bootstrapped from."""
        spec = self.specs.images[recipe.name].bootstrap if recipe is not self.toolchain else None
        return spec or bootstrap(TOOLCHAIN_SPEC)

    def locked(self, recipe: Recipe) -> LockedBase | None:
        """Return what a base recipe is locked to, or None."""
        which = self.toolchain_lock if recipe is self.toolchain else self.specs.lock
        return _current(which, recipe.name, self.bootstrap(recipe))

    def kernel(self, name: str) -> Recipe:
        spec = self.specs.kernels[name]
        if isinstance(spec, GivenKernel):
            return recipes.given_kernel(spec, self._digests)
        return recipes.kernel(spec, self.toolchain)

    def container(self, name: str, _upon: tuple[str, ...] = ()) -> Recipe:
        """The container image of images/NAME. Raises SpecError for a FROM that cannot be."""
        if name in _upon:
            raise SpecError([f"images that are FROM each other: {' -> '.join((*_upon, name))}"])
        if name not in self._containers:
            spec = self.specs.images[name]
            if spec.bootstrap is not None:
                locked = self._locked(name, spec.bootstrap)
                made = recipes.base(name, spec.bootstrap, locked)
            else:
                parents = [self.container(up, (*_upon, name)) for up in self.upon(name)]
                images = {ref.name: self._digest(ref) for ref in self.tags(name)}
                described = context.describe(spec.directory, self._digests, self._barred)
                own = self._apart(name, described)
                args = self.build_args(name)
                made = recipes.container(spec, parents, images, described, args, own)
            self._containers[name] = replace(made, mark=self.mark)
        return self._containers[name]

    def upon(self, name: str) -> list[str]:
        """Return the images of images/ that NAME is built upon. Raises SpecError."""
        found: dict[str, None] = {}
        for ref in (dockerfile.local_name(r.name) for r in self.references(name) if r.local):
            if ref not in self.specs.images:
                near = did_you_mean(ref, self.specs.images)
                raise SpecError(
                    [f"images/{name}/Dockerfile: {dockerfile.LOCAL}{ref}: no images/{ref}{near}"],
                    hint=f"{dockerfile.LOCAL}NAME stands for the image NAME of images/",
                )
            if (theirs := self.specs.images[ref].arch) != (ours := self.specs.images[name].arch):
                raise SpecError(
                    [
                        f"images/{name}/Dockerfile: {dockerfile.LOCAL}{ref}: it is for {theirs}, "
                        f"this image for {ours}"
                    ],
                    hint=f'arch = "{theirs}" in images/{name}/image.toml makes it one for that',
                )
            found[ref] = None
        return list(found)

    def dockerfile(self, name: str) -> str:
        """Return the Dockerfile of images/NAME as the engine gets it: with images in place of
        names."""
        args = self.specs.images[name].build_args
        return dockerfile.pin(_decoded(name, self._text(name)), args, self.pinned)

    def references(self, name: str) -> list[Reference]:
        """Return the images that the Dockerfile of images/NAME names. Raises SpecError."""
        spec = self.specs.images[name]
        if spec.bootstrap is not None:
            return []
        return dockerfile.references(_decoded(name, self._text(name)), spec.build_args)

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
        text = _decoded(name, self._text(name))
        found = [
            f"images/{name}/Dockerfile:{ref.line(text)}: {ref.name} is not locked"
            for ref in self.tags(name)
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
        entries = [self.specs.lock.images.get(ref.name) for ref in self.tags(name)]
        times = [entry.time for entry in entries if entry]
        return max([*times, *map(self.epoch, self.upon(name))], default=context.EPOCH)

    def build_args(self, name: str) -> dict[str, str]:
        """Return the ARGs that the Dockerfile of images/NAME is built with: its own, and the time
        of the image under the name that BuildKit and many programs know."""
        return {EPOCH_ARG: str(self.epoch(name)), **self.specs.images[name].build_args}

    def rootfs(self, name: str) -> Recipe:
        epoch = self.epoch(name)
        spec = self.specs.images[name]
        return recipes.rootfs(spec, self.container(name), self.init_for(spec.arch), epoch)

    def bootable(self) -> list[str]:
        """Return the images that become root filesystems: all but the bootstrapped bases."""
        return [name for name, spec in self.specs.images.items() if spec.bootstrap is None]

    def architectures(self) -> list[str]:
        """Return the architectures of the images that become root filesystems, sorted."""
        return sorted({self.specs.images[name].arch for name in self.bootable()})

    def all(self) -> Iterable[Recipe]:
        """Every recipe of the checkout, parents before children."""
        yield self.toolchain
        yield self.init
        yield from (self.init_for(arch) for arch in self.architectures() if arch != X86_64)
        yield self.agent
        yield from map(self.kernel, self.specs.kernels)
        yield from (self.container(name) for name in self.specs.images if self._is_base(name))
        yield from map(self.rootfs, self.bootable())

    def tags(self, name: str) -> list[Reference]:
        """Return the references of a Dockerfile that need a lock to stay what they are."""
        return [ref for ref in self.references(name) if ref.tagged]

    def _text(self, name: str) -> bytes:
        """Return a Dockerfile as it was when this plan read it first."""
        if name not in self._texts:
            self._texts[name] = _read(self.specs.images[name])
        return self._texts[name]

    def _apart(self, name: str, described: Mapping[str, str]) -> str | None:
        """Return the digest of a Dockerfile that the context does not hold: .dockerignore leaves it
        out, or it is a link. Raises InputChanged when the context's is another than was read."""
        own = sha256(self._text(name)).hexdigest()
        kind, _, digest = described.get("Dockerfile", "").partition(" ")
        if kind not in {"file", "exec"}:
            return own
        if digest != own:
            raise InputChanged(os.fspath(self.specs.images[name].directory / "Dockerfile"))
        return None

    def _locked(self, name: str, spec: Bootstrap) -> LockedBase | None:
        return _current(self.specs.lock, name, spec)

    def _digest(self, ref: Reference) -> str | None:
        entry = self.specs.lock.images.get(ref.name)
        return entry.digest if entry else None

    def _is_base(self, name: str) -> bool:
        return self.specs.images[name].bootstrap is not None

    def _program(
        self, kind: Literal["init", "agent"], directory: str, names: Iterable[str]
    ) -> Recipe:
        sources: dict[str, Json] = {}
        for name in names:
            path = os.fspath(PACKAGE / directory / name)
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 (no Path on a fast way)
            sources[name] = fingerprint.describe(path, status, self._digests.of)
        return Recipe(kind, directory, {"sources": sources}, (self.toolchain,))


def _sources(directory: str) -> list[str]:
    """Return the names of a program's sources."""
    return [
        name
        for name in os.listdir(PACKAGE / directory)  # noqa: PTH208 (names are all that is asked for)
        if name.endswith((".c", ".h")) or name == "Makefile"
    ]


def read_dockerfile(spec: ImageSpec) -> str:
    """Return the text of an image's Dockerfile. Raises SpecError."""
    return _decoded(spec.name, _read(spec))


def _read(spec: ImageSpec) -> bytes:
    try:
        return (spec.directory / "Dockerfile").read_bytes()
    except OSError as error:
        raise SpecError([f"images/{spec.name}/Dockerfile: cannot be read: {error}"]) from error


def _decoded(name: str, text: bytes) -> str:
    try:
        # Line ends stay as they are. The engine skips a byte order mark too.
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([f"images/{name}/Dockerfile: cannot be read: {error}"]) from error


def _current(which: Lock, name: str, spec: Bootstrap) -> LockedBase | None:
    """Return the lock of a base, unless the base was asked to be something else then."""
    entry = which.bases.get(name)
    asked = (spec.suite, tuple(sorted(spec.packages)), spec.arch)
    return entry if entry and (entry.suite, entry.asked, entry.arch) == asked else None
