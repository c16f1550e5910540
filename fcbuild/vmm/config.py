"""What a microVM is made of: one dataclass for each body of Firecracker's API, field for field.

Source of names and limits: Firecracker's API description, v1.12.1. Rendered as API calls; a body
leaves out what is None, so Firecracker's own defaults hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

GUEST_CID = 3  # the first context id that is free for guests: vsock(7)
CMDLINE_MAX = 2048  # COMMAND_LINE_SIZE on x86, which Firecracker enforces

# Section 5 of guest/BOOT_CONTRACT.md says why each is there.
CMDLINE = (
    "reboot=k panic=-1 quiet nomodule console=ttyS0 "
    "i8042.noaux i8042.nomux i8042.dumbkbd pci=off init=/.fcbuild/init"
)


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
class VmConfig:
    """A whole microVM."""

    machine: MachineConfig
    boot: BootSource
    drives: tuple[Drive, ...]
    vsock: Vsock
    entropy: Entropy = Entropy()

    def calls(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the PUTs that configure it, as (path, body)."""
        yield "/machine-config", body(self.machine)
        yield "/boot-source", body(self.boot)
        for drive in self.drives:
            yield f"/drives/{drive.drive_id}", body(drive)
        yield "/vsock", body(self.vsock)
        yield "/entropy", body(self.entropy)


def body(part: MachineConfig | BootSource | Drive | Vsock | Entropy) -> dict[str, Any]:
    """Return the JSON body of one part."""
    return {key: value for key, value in asdict(part).items() if value is not None}


def for_image(*, kernel: Path, rootfs: Path, vsock: Path, vcpus: int, memory_mib: int) -> VmConfig:
    """Return the microVM that boots this kernel with this root filesystem."""
    return VmConfig(
        machine=MachineConfig(vcpu_count=vcpus, mem_size_mib=memory_mib),
        boot=BootSource(kernel_image_path=str(kernel), boot_args=CMDLINE),
        drives=(
            Drive(
                drive_id="rootfs",
                path_on_host=str(rootfs),
                is_root_device=True,
                is_read_only=False,
            ),
        ),
        vsock=Vsock(guest_cid=GUEST_CID, uds_path=str(vsock)),
    )
