"""A microVM of Firecracker's: configured and started over its API."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from fcbuild.errors import BootTimeout, VmmError
from fcbuild.vmm.api import Api
from fcbuild.vmm.config import MicroVm, VmConfig, for_image
from fcbuild.vmm.firecracker import Firecracker
from fcbuild.vmm.host import Host, KvmKind, VmmLaunch, VmmProcess
from fcbuild.vmm.link import EVENTS, STDERR, STDOUT, dial_vsock
from fcbuild.vmm.machine import CONNECT_S, DYING_S, Machine

_SOCKET_RETRY_S = 0.002  # see FirecrackerMachine._await_api


class FirecrackerMachine(Machine):
    """See Machine. host: where Firecracker runs."""

    def __init__(self, host: Host, vm: MicroVm, *, firecracker: Path, run_dir: Path) -> None:
        log = run_dir / "firecracker.log"
        super().__init__("Firecracker", run_dir=run_dir, log=log, dial=dial_vsock)
        self.host = host
        self._api_socket = run_dir / "api.sock"
        vsock = self._link.uds
        self.config: VmConfig = for_image(vm, vsock=vsock)
        self._launch = VmmLaunch(
            run_dir=run_dir,
            firecracker=firecracker,
            args=(
                *("--api-sock", str(self._api_socket), "--id", "fcbuild"),
                *("--log-path", str(log), "--level", "Warn"),
            ),
            connect=(self._api_socket, vsock),
            listen=tuple(map(self._link.path, (EVENTS, STDOUT, STDERR))),
            logs=(log,),
            disks=[
                (Path(drive.path_on_host), not drive.is_read_only) for drive in self.config.drives
            ],
            files=(vm.kernel,),
            memory_mib=vm.memory_mib,
            vcpus=vm.vcpus,
            tap=vm.tap,
        )

    def send_ctrl_alt_del(self) -> None:
        Api(self._api_socket, timeout_s=CONNECT_S).action("SendCtrlAltDel")

    def _spawn(self) -> VmmProcess:
        # Before Firecracker 1.14 the log file has to be there already.
        self.vmm_log.touch(mode=0o600)
        return self.host.spawn(self._launch)

    def _begin(self, deadline: float) -> None:
        self._await_api(deadline)
        api = Api(self._api_socket, timeout_s=max(1.0, deadline - time.monotonic()))
        try:
            self.version = api.version()
            self.timings.api = time.monotonic()
            for path, body in self.config.calls():
                api.put(path, body)
            self.timings.configured = time.monotonic()
            # Before it is answered: the guest may be quicker than we are with the answer.
            self.timings.started = time.monotonic()
            api.action("InstanceStart")
        except VmmError as error:
            if type(error) is VmmError:
                # The socket broke: Firecracker's end is the reason, and says more.
                self._take_until(time.monotonic() + DYING_S)
                if self._ended:
                    self._raise_end("starting the guest")
            raise

    def _await_api(self, deadline: float) -> None:
        # Between bind and listen Firecracker's socket is there and refuses, and no event tells
        # when that is over, so it is tried again; an end of the process is noticed in between.
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(str(self._api_socket))
                    return
                except (FileNotFoundError, ConnectionRefusedError):
                    pass
            self._take(time.monotonic() + _SOCKET_RETRY_S)
            if self._ended:
                self._raise_end("waiting for the API socket")
            if time.monotonic() > deadline:
                self._raise(BootTimeout, "Firecracker's API socket did not come up")


@dataclass(frozen=True)
class FirecrackerVmm:
    """A machine.Vmm: Firecracker, in a host that has KVM."""

    host: Host
    binary: Firecracker
    name: str = "firecracker"

    @property
    def version(self) -> str:
        return self.binary.version

    @property
    def kind(self) -> KvmKind:
        return self.host.kind

    def machine(self, vm: MicroVm, run_dir: Path) -> FirecrackerMachine:
        return FirecrackerMachine(self.host, vm, firecracker=self.binary.path, run_dir=run_dir)
