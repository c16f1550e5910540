"""A bundle: what an image is for somebody who has no fcbuild, as a few files side by side.

    vmlinux or Image   the guest's kernel
    rootfs.ext4        the root filesystem; overlay.ext4, for an image that has such a drive
    vm.json            the microVM, for firecracker --config-file, started in the same directory
    boot.sh            the same as plain calls of curl; it leaves the drives as they are
    fcbuild.json       what an image is (document.py)

Its bytes follow from what was built and from image.toml, and from nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fcbuild import microvm
from fcbuild.errors import ImageError, SpecError
from fcbuild.kernel_command_line import FIRECRACKER
from fcbuild.plan import Plan
from fcbuild.publish import document, script
from fcbuild.recipes import OVERLAY_FILE, ROOTFS_FILE
from fcbuild.series import KERNEL_FILE
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact, Store
from fcbuild.vmm.config import VmConfig, for_image

VM_CONFIG = "vm.json"

# Media types, of the plain bytes: RFC 6838, vendor tree.
KERNEL = "application/vnd.fcbuild.kernel.v1"
DISK = "application/vnd.fcbuild.disk.ext4.v1"
VM = "application/vnd.fcbuild.vm.v1+json"
SCRIPT = "application/vnd.fcbuild.script.v1"
DOCUMENT = "application/vnd.fcbuild.microvm.config.v1+json"

_VSOCK = Path("v.sock")  # Firecracker makes it where it is started


class File(NamedTuple):
    """One file. title: its name. source: a file of the store, or the bytes. mode: permission bits.
    digest: the sha256 of its bytes, in hexadecimal; size: how many there are."""

    title: str
    media_type: str
    source: Path | bytes
    mode: int
    digest: str
    size: int


class Bundle(NamedTuple):
    """One image for one architecture. files: what is large comes first. document: fcbuild.json,
    which is one of the files."""

    image: str
    arch: str
    files: tuple[File, ...]
    document: bytes

    @property
    def stored(self) -> dict[str, Path]:
        """The files of the store, by title."""
        return {file.title: file.source for file in self.files if isinstance(file.source, Path)}


def of(spec: ImageSpec, kernel: Artifact, rootfs: Artifact) -> Bundle:
    """Return the bundle of an image that is built. Raises VmmError for a kernel command line that
    does not fit."""
    boot_args = _configured(spec).boot.boot_args
    described = document.render(document.of(spec, kernel, rootfs, boot_args))
    return Bundle(
        spec.name,
        spec.arch,
        (
            _stored(KERNEL, kernel, KERNEL_FILE[spec.arch]),
            *(_stored(DISK, rootfs, name) for name in document.rootfs_files(spec)),
            _made(VM_CONFIG, VM, vm_config(spec)),
            _made(script.NAME, SCRIPT, boot_script(spec, places(spec)).encode(), mode=0o755),
            _made(document.NAME, DOCUMENT, described),
        ),
        described,
    )


def built(plan: Plan, store: Store, name: str) -> Bundle:
    """Return the bundle of an image as it is now. Raises what `parts` does, and VmmError."""
    return of(plan.specs.images[name], *parts(plan, store, name))


def parts(plan: Plan, store: Store, name: str) -> tuple[Artifact, Artifact]:
    """Return kernel and root filesystem of an image as it is now, held, and as they were built.

    Raises SpecError for a base, ImageError for what is not built, StoreError for what is damaged.
    """
    if name not in plan.bootable():
        raise SpecError(
            [f"{name} is a base for other images: it is no microVM"],
            hint=f"images that are: {', '.join(plan.bootable())}",
        )
    kernel, rootfs = plan.kernel(plan.specs.images[name].kernel), plan.rootfs(name)
    if missing := [str(recipe) for recipe in (kernel, rootfs) if store.find(recipe) is None]:
        raise ImageError(
            f"{name}, as it is now, is not built: the store has no {' and no '.join(missing)}",
            hint=f"doit build image={name} makes it",
        )
    return store.need(kernel), store.need(rootfs)


def places(spec: ImageSpec) -> dict[str, str]:
    """Return the files that a microVM is made of, by what they are to it."""
    found = {"kernel": KERNEL_FILE[spec.arch], "rootfs": ROOTFS_FILE}
    return found if spec.overlay_size is None else {**found, "overlay": OVERLAY_FILE}


def vm_config(spec: ImageSpec) -> bytes:
    """Return vm.json, for a Firecracker that is started where the files are.

    It has no network interface: whose TAP device that would be, only the host knows. Raises
    VmmError for a kernel command line that does not fit.
    """
    return (json.dumps(_configured(spec).document(), indent=1) + "\n").encode()


def boot_script(spec: ImageSpec, files: Mapping[str, str | Path]) -> str:
    """Return boot.sh. files: as of `places`; names are beside it, paths are where they say."""
    return script.render(
        spec,
        {
            what: f"{script.HERE}/{file}" if isinstance(file, str) else file
            for what, file in files.items()
        },
    )


def _configured(spec: ImageSpec) -> VmConfig:
    files = {what: Path(name) for what, name in places(spec).items()}
    vm = microvm.described(spec, **files)
    return for_image(vm, vsock=_VSOCK, platform=FIRECRACKER[spec.arch])


def _stored(media_type: str, artifact: Artifact, name: str) -> File:
    return File(
        name,
        media_type,
        artifact.file(name),
        0o644,
        artifact.digests[name],
        artifact.sizes[name],
    )


def _made(title: str, media_type: str, data: bytes, mode: int = 0o644) -> File:
    return File(title, media_type, data, mode, hashlib.sha256(data).hexdigest(), len(data))
