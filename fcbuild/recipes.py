"""One artifact to have: what it is made from, and the fingerprint that follows.

Which inputs a kind of artifact has is decided here. A recipe's fingerprint covers its parents'
fingerprints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from fcbuild import dockerfile, fingerprint
from fcbuild.digests import Digests
from fcbuild.errors import SpecError
from fcbuild.ext4 import form
from fcbuild.fingerprint import SHORT, Json
from fcbuild.lock import LockedBase
from fcbuild.series import DEBIAN_ARCH, KERNEL_FILE, X86_64, GivenKernel, KernelSpec
from fcbuild.spec import Bootstrap, ImageSpec

Kind = Literal["base", "container", "kernel", "init", "agent", "rootfs"]

# Raise a kind's number when its builder makes other bytes from the same inputs.
SCHEMA: Mapping[Kind, int] = {
    "base": 2,
    "container": 1,
    "kernel": 3,
    "init": 1,
    "agent": 1,
    "rootfs": 5,
}

BOOT_CONTRACT = 2  # fcbuild/guest/BOOT_CONTRACT.md

ROOTFS_FILE = "rootfs.ext4"
OVERLAY_FILE = "overlay.ext4"  # the drive that takes what the guest writes
PRODUCTS: tuple[Kind, ...] = ("kernel", "rootfs")  # what artifacts/ has links to
TAKEN = "taken"  # how names of artifacts begin that others have made


@dataclass(frozen=True, eq=False, repr=False)
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

    @property
    def product(self) -> tuple[str, str]:
        """The file that artifacts/ links to, and where; of the kinds in PRODUCTS."""
        return product(self.kind, self.name, str(self.inputs.get("arch", X86_64)))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def base(name: str, spec: Bootstrap, locked: LockedBase | None) -> Recipe:
    return Recipe(
        "base",
        name,
        {
            "suite": spec.suite,
            "packages": sorted(spec.packages),
            "arch": DEBIAN_ARCH[spec.arch],
            "lock": {"time": locked.time, "packages": dict(locked.packages)} if locked else None,
        },
    )


def container(
    spec: ImageSpec,
    parents: Iterable[Recipe],
    images: Mapping[str, str | None],
    described: Mapping[str, str],
    args: Mapping[str, str],
    apart: str | None,
) -> Recipe:
    """images: digests of the tags that the Dockerfile names. described: the build context. apart:
    the digest of a Dockerfile that is not in it."""
    return Recipe(
        "container",
        spec.name,
        {
            **({"dockerfile": apart} if apart else {}),
            "context": dict(described),
            "args": dict(args),
            "target": spec.build_target,
            "platform": spec.platform,
            "images": dict(images),
        },
        tuple(parents),
    )


def product(kind: Kind, name: str, arch: str) -> tuple[str, str]:
    """Return the file of an artifact that artifacts/ links to, and where the link is."""
    if kind == "kernel":
        return KERNEL_FILE[arch], f"kernels/{name}/{KERNEL_FILE[arch]}"
    return ROOTFS_FILE, f"images/{name}.ext4"


def given_kernel(spec: GivenKernel, digests: Digests) -> Recipe:
    """A kernel that the user has already. Raises SpecError, InputChanged."""
    sha256 = spec.sha256
    if spec.path is not None:
        try:
            path = spec.path.resolve(strict=True)
            sha256 = digests.of(os.fspath(path), path.stat())
        except OSError as error:
            raise SpecError([f"kernel: {spec.path} cannot be read: {error.strerror}"]) from error
    return Recipe("kernel", spec.name, {"arch": spec.arch, "sha256": sha256})


def taken(
    kind: Kind, name: str, arch: str, files: Mapping[str, str], facts: Mapping[str, Json]
) -> Recipe:
    """An artifact that others have made: it is known by its bytes, not by what they came from, so
    that it never passes for one of ours. files: the sha256 of each."""
    inputs: dict[str, Json] = {"arch": arch, "files": dict(files), "facts": dict(facts)}
    return Recipe(kind, f"{TAKEN}/{name}", inputs)


def kernel(spec: KernelSpec, toolchain: Recipe) -> Recipe:
    return Recipe(
        "kernel",
        spec.name,
        {
            "arch": spec.arch,
            "sources": [
                {"version": source.version, "sha256": source.sha256} for source in spec.sources
            ],
            "fragments": {
                path.name: fingerprint.describe(path.resolve()) for path in spec.fragments
            },
            "order": [path.name for path in spec.fragments],
            "patches": [
                f"{path.name} {fingerprint.describe(path.resolve())}" for path in spec.patches
            ],
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
