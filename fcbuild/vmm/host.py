"""Where Firecracker runs: natively on this machine's KVM, or inside an emulated KVM host.

The driver above this seam sees no difference: it spawns Firecracker, talks to the unix sockets in
the run directory and reads the files that Firecracker writes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

# What a guest runs on: this machine's KVM, the KVM of an emulated host, or an emulated machine.
KvmKind = Literal["native", "emulated", "none"]


class Place(Protocol):
    """Something that runs microVMs."""

    @property
    def kind(self) -> KvmKind:
        """What a guest runs on there."""


@dataclass(frozen=True, kw_only=True)
class VmmLaunch:
    """One Firecracker to start, in host paths that hold in whichever host runs it.

    run_dir: private directory (0700), short enough for unix sockets in it (under 108 bytes).
    firecracker: the binary. args: its arguments (--api-sock run_dir/api.sock ...).
    connect: sockets below run_dir that Firecracker listens on and we connect to.
    listen: sockets below run_dir that we listen on and Firecracker connects to (guest vsock).
    logs: files below run_dir that Firecracker opens for writing (--log-path).
    disks: files that Firecracker opens as drives, with True where the guest may write.
    files: files that Firecracker only reads (guest kernel).
    memory_mib: RAM of the guest, so that an emulated host can be made large enough.
    vcpus: vCPUs of the guest.
    tap: the TAP device that Firecracker opens: this machine's, or made in an emulated host.
    Firecracker's standard output (the guest's serial console) goes to run_dir/console.log.
    """

    run_dir: Path
    firecracker: Path
    args: Sequence[str]
    connect: Sequence[Path]
    listen: Sequence[Path]
    logs: Sequence[Path]
    disks: Sequence[tuple[Path, bool]]
    files: Sequence[Path]
    memory_mib: int
    vcpus: int
    tap: str | None = None


class VmmProcess(Protocol):
    """A running Firecracker, wherever it runs."""

    @property
    def pid(self) -> int:
        """The local process whose end is the end of the VMM (for a pidfd)."""

    def wait(self, timeout_s: float) -> int:
        """Reap it and return Firecracker's own exit status; raises VmmError on timeout."""

    def end(self) -> None:
        """End it at once, whatever state it is in; safe to call twice. Leaves no process."""

    def trouble(self) -> str | None:
        """Say in one line what went wrong below Firecracker (the emulated host), if anything."""


class Host(Place, Protocol):
    """A place that can run Firecracker."""

    def spawn(self, launch: VmmLaunch) -> VmmProcess:
        """Start Firecracker; returns once the process runs (its API socket may come later)."""
