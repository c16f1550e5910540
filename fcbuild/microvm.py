"""The microVM that an image, an instance's own values and a host make: its drives and its network.

Drives that the guest writes to are private copies, and so is the config drive; a root that it only
reads is the store's own file, shared by all VMs that boot it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcbuild import instance as instances
from fcbuild import progress
from fcbuild.errors import SpecError
from fcbuild.instance import Instance
from fcbuild.network import NetworkSpec
from fcbuild.recipes import OVERLAY_FILE, ROOTFS_FILE
from fcbuild.run import run
from fcbuild.series import KERNEL_FILE
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact
from fcbuild.tables import MIB
from fcbuild.vmm import tap
from fcbuild.vmm.config import MicroVm
from fcbuild.vmm.host import Place

COPY_TIMEOUT_S = 600.0


def described(
    spec: ImageSpec, *, kernel: Path, rootfs: Path, overlay: Path | None = None
) -> MicroVm:
    """Return the microVM that an image alone makes of these files. overlay: of an image that has a
    drive for what the guest writes."""
    return MicroVm(
        kernel=kernel,
        rootfs=rootfs,
        vcpus=spec.vcpus,
        memory_mib=spec.memory // MIB,
        shared=spec.readonly or spec.overlay,
        overlay=overlay,
        arguments=spec.kernel_arguments,
    )


def assemble(
    spec: ImageSpec,
    *,
    kernel: Artifact,
    rootfs: Artifact,
    place: Place,
    run_dir: Path,
    instance: Instance | None = None,
) -> MicroVm:
    """Return the microVM; its private drives are made in run_dir.

    Raises SpecError for an instance that does not go with the image, ToolMissing for a TAP device
    that is not there, CommandFailed when a drive cannot be copied.
    """
    config = None
    if instance is not None:
        drive = instances.render(instance, instances.users(rootfs.facts))
        config = _write_private(run_dir / "config.drive", drive)
    device = choose_tap(spec, instance, place)
    vm = described(
        spec,
        kernel=kernel.file(KERNEL_FILE[spec.arch]),
        rootfs=rootfs.file(ROOTFS_FILE),
        overlay=rootfs.file(OVERLAY_FILE) if spec.overlay_size is not None else None,
    )
    return replace(
        vm,
        rootfs=vm.rootfs if vm.shared else copy_disk(vm.rootfs, run_dir / ROOTFS_FILE),
        overlay=vm.overlay and copy_disk(vm.overlay, run_dir / OVERLAY_FILE),
        config=config,
        tap=device,
        mac=instance.mac if instance else None,
        metadata=metadata(spec, instance),
        # The kernel mostly takes the last word of a name, which is the instance's then.
        arguments=(*vm.arguments, *(instance.kernel_arguments if instance else ())),
    )


def remove_drives(vm: MicroVm, run_dir: Path) -> None:
    """Remove the private drives: they are large, and hold what the instance's values set."""
    for drive in vm.drives:
        path = Path(drive.path_on_host)
        if path.parent == run_dir:
            path.unlink()


def choose_tap(spec: ImageSpec, instance: Instance | None, place: Place) -> str | None:
    """Return the host's end of the guest's network interface; None for no interface.

    Without one an image boots all the same and its ports are reached over vsock. Raises ToolMissing
    for a device that is not there, SpecError for a metadata service that nobody could ask.
    """
    named = instance.tap if instance else None
    described = spec.network != NetworkSpec()
    if instance:
        described |= instance.network != NetworkSpec() or instance.metadata is not None
    if place.kind == "none" and instance and instance.metadata is not None:
        raise SpecError(
            [f"{instance.where}: mmds: the metadata service is Firecracker's, and QEMU has none"],
            hint="give the values in another way: env, files or arguments",
        )
    if place.kind == "emulated":
        return named or (tap.EMULATED if described else None)
    if named:
        tap.check(named)
    elif instance and instance.metadata is not None:
        raise SpecError(
            [f"{instance.where}: mmds: the metadata service needs a network interface"],
            hint='name a TAP device: [network] tap = "tap0"',
        )
    elif described:
        progress.say(f"{spec.name} has a network, but no instance names a tap: it boots without")
    return named


def metadata(spec: ImageSpec, instance: Instance | None) -> Mapping[str, Any] | None:
    """Return what the metadata service has to serve; None for no service."""
    if instance and instance.metadata is not None:
        return instance.metadata
    routed = spec.network.mmds or (instance is not None and instance.network.mmds)
    return {} if routed else None


def copy_disk(source: Path, to: Path) -> Path:
    """Make a private, sparse copy (a reflink where the file system has them) and return its path:
    objects of the store are never booted read-write."""
    run(
        ["cp", "--reflink=auto", "--sparse=always", "--no-preserve=mode", source, to],
        what=f"copying {source.name}",
        timeout_s=COPY_TIMEOUT_S,
    )
    to.chmod(0o600)
    return to


def _write_private(path: Path, content: bytes) -> Path:
    """Write a new file that only we can read; return its path."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path
