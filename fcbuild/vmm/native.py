"""Firecracker on this machine's own KVM."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from fcbuild.errors import VmmError
from fcbuild.vmm import process
from fcbuild.vmm.host import KvmKind, VmmLaunch


@dataclass(frozen=True)
class NativeHost:
    """Runs Firecracker as a child process."""

    kind: KvmKind = "native"

    def spawn(self, launch: VmmLaunch) -> NativeProcess:
        with (launch.run_dir / "console.log").open("wb") as console:
            return NativeProcess(process.spawn([launch.firecracker, *launch.args], stdout=console))


class NativeProcess:
    """A Firecracker that is our child."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait(self, timeout_s: float) -> int:
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise VmmError(f"Firecracker did not end within {timeout_s:.0f} s") from error

    def end(self) -> None:
        process.end(self._child)

    def trouble(self) -> str | None:
        return None
