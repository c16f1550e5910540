"""What a microVM is made of: one dataclass for each body of Firecracker's API, field for field.

Source of names and limits: Firecracker's API description, v1.12.1. Rendered as API calls, or as the
one document of --config-file; a body leaves out what is None, so Firecracker's own defaults hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Literal

from fcbuild.kernel_command_line import FIRECRACKER_X86, Platform

NIC = "eth0"  # the interface's id, and its name in the guest
GUEST_CID = 3  # the first context id that is free for guests: vsock(7)


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    vcpu_count: int
    mem_size_mib: int


@dataclass(frozen=True, kw_only=True)
class BootSource:
    kernel_image_path: str
    boot_args: str


@dataclass(frozen=True, kw_only=True)
class Drive:
    drive_id: str
    path_on_host: str
    is_root_device: bool
    is_read_only: bool
    cache_type: Literal["Unsafe", "Writeback"] | None = None


@dataclass(frozen=True, kw_only=True)
class Vsock:
    guest_cid: int
    uds_path: str


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """virtio-rng; it has no required field."""


@dataclass(frozen=True, kw_only=True)
class NetworkInterface:
    iface_id: str
    host_dev_name: str
    guest_mac: str | None = None


@dataclass(frozen=True, kw_only=True)
class MmdsConfig:
    network_interfaces: tuple[str, ...]
    version: Literal["V1", "V2"] | None = None


Part = MachineConfig | BootSource | Drive | Vsock | Entropy | NetworkInterface | MmdsConfig


@dataclass(frozen=True, kw_only=True)
class VmConfig:
    """A whole microVM. metadata: what MMDS serves; it may hold secrets."""

    machine: MachineConfig
    boot: BootSource
    drives: tuple[Drive, ...]
    vsock: Vsock
    entropy: Entropy = Entropy()
    interface: NetworkInterface | None = None
    mmds: MmdsConfig | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)

    def calls(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the PUTs that configure it, as (path, body)."""
        yield "/machine-config", body(self.machine)
        yield "/boot-source", body(self.boot)
        for drive in self.drives:
            yield f"/drives/{drive.drive_id}", body(drive)
        yield "/vsock", body(self.vsock)
        yield "/entropy", body(self.entropy)
        if self.interface is not None:
            yield f"/network-interfaces/{self.interface.iface_id}", body(self.interface)
        if self.mmds is not None:  # names an interface, so that comes before
            yield "/mmds/config", body(self.mmds)
            yield "/mmds", dict(self.metadata or {})

    def document(self) -> dict[str, Any]:
        """Return the document of --config-file: VmmConfig in src/vmm/src/resources.rs, v1.12.1.

        What MMDS serves is no part of it: Firecracker takes that from --metadata.
        """
        found: dict[str, Any] = {
            "boot-source": body(self.boot),
            "machine-config": body(self.machine),
            "drives": [body(drive) for drive in self.drives],
            "vsock": body(self.vsock),
            "entropy": body(self.entropy),
        }
        if self.interface is not None:
            found["network-interfaces"] = [body(self.interface)]
        if self.mmds is not None:
            found["mmds-config"] = body(self.mmds)
        return found


def body(part: Part) -> dict[str, Any]:
    """Return the JSON body of one part."""
    return {key: value for key, value in asdict(part).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class MicroVm:
    """What to boot, in files of this machine.

    rootfs: read only by the guest when shared is true (it may be an object of the store then), else
    written to. config: the instance's config drive. overlay: a file system for what the guest
    writes over a shared root. tap: the host's end of eth0; without one there is no eth0.
    metadata: what the metadata service serves on eth0; None for no service. arguments: further
    words of the kernel's command line, which every program in the guest can read. verbose: whether
    the kernel tells on its console how its boot goes.
    """

    kernel: Path
    rootfs: Path
    vcpus: int
    memory_mib: int
    shared: bool = False
    config: Path | None = None
    overlay: Path | None = None
    tap: str | None = None
    mac: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    arguments: tuple[str, ...] = ()
    verbose: bool = False

    @property
    def drives(self) -> tuple[Drive, ...]:
        """The drives, in the guest's order: /dev/vda, /dev/vdb, /dev/vdc."""
        files = (
            ("rootfs", self.rootfs, self.shared),
            ("config", self.config, True),
            ("overlay", self.overlay, False),
        )
        return tuple(
            Drive(
                drive_id=name,
                path_on_host=str(path),
                is_root_device=name == "rootfs",
                is_read_only=read_only,
            )
            for name, path, read_only in files
            if path is not None
        )


def for_image(vm: MicroVm, *, vsock: Path, platform: Platform = FIRECRACKER_X86) -> VmConfig:
    """Return Firecracker's configuration of a microVM. Raises VmmError for what cannot be."""
    drives = vm.drives
    interface = mmds = None
    if vm.tap is not None:
        interface = NetworkInterface(iface_id=NIC, host_dev_name=vm.tap, guest_mac=vm.mac)
        if vm.metadata is not None:
            mmds = MmdsConfig(network_interfaces=(NIC,), version="V2")
    if vm.verbose:
        platform = platform.loud()
    # Besides the drives: vsock, entropy, and the interface.
    devices = len(drives) + 2 + (interface is not None)
    return VmConfig(
        machine=MachineConfig(vcpu_count=vm.vcpus, mem_size_mib=vm.memory_mib),
        boot=BootSource(
            kernel_image_path=str(vm.kernel),
            boot_args=platform.line((*drive_words(drives), *vm.arguments), devices=devices),
        ),
        drives=drives,
        vsock=Vsock(guest_cid=GUEST_CID, uds_path=str(vsock)),
        interface=interface,
        mmds=mmds,
        metadata=vm.metadata,
    )


def drive_words(drives: Sequence[Drive]) -> list[str]:
    """Return a word of the kernel's command line for each drive but the root: fcbuild.config=,
    fcbuild.overlay=."""
    return [
        f"fcbuild.{drive.drive_id}=/dev/vd{letter}"
        for drive, letter in zip(drives, ascii_lowercase, strict=False)
        if not drive.is_root_device
    ]
