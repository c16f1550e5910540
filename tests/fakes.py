"""A stand-in for Firecracker: its HTTP API on a unix socket, and a scripted guest behind vsock.

`install` writes an executable that a Host can start in Firecracker's place. What the API does and
what the guest does is data: an Act. The guest is a list of steps, run after InstanceStart.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSION = "1.12.1"
MAX_CONNECTIONS = 10  # of the API; one more is answered with 503
EVENTS, STDOUT, STDERR, CONTROL, FORWARD = 10240, 10241, 10242, 10250, 10251

Step = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Act:
    """What the stand-in does.

    guest: the steps of the guest, each the name of a method `do_NAME` of Guest and its arguments.
    refuse: API path -> fault_message of the 400 it is answered. hang: an API path without answer.
    die: an API path at which the process ends. dies_with: the end at the very start, with a
    message. socket: whether there is an API socket at all. http: guest port -> what a request
    gets sent. greets: guest port -> what a connection gets sent at once. control: the answer to
    an order; "" for none, None for a connection that is reset.
    """

    guest: Sequence[Step] = ()
    refuse: Mapping[str, str] = field(default_factory=dict)
    hang: str = ""
    die: str = ""
    dies_with: str = ""
    socket: bool = True
    http: Mapping[str, str] = field(default_factory=dict)
    greets: Mapping[str, str] = field(default_factory=dict)
    control: str | None = "ok\n"


def event(name: str, **fields: Any) -> Step:
    return ["event", {"event": name, "t": time.monotonic_ns() % 10**9, **fields}]


# The guest's way to its program, and from there to its end, by the boot contract.
BOOT: Sequence[Step] = (event("init", contract=2, start=1), event("mounted"), event("exec", pid=2))


def end(
    code: int = 0, signal: int = 0, *, oom: bool = False, stdout: int = 0, stderr: int = 0
) -> Sequence[Step]:
    return (
        event("exit", code=code, signal=signal, oom=oom, stdout=stdout, stderr=stderr),
        event("end"),
        ["await_close"],
        ["leave", 0],
    )


STOPPED: Sequence[Step] = (
    ["await_stop"],
    event("stopping", signal=15, by="control"),
    *end(code=0),
)
SERVICE: Sequence[Step] = (*BOOT, *STOPPED)


def health(status: str, failing: int = 0, **check: Any) -> Step:
    """A health event; check: code and output, where a check has ended."""
    return event("health", status=status, failing=failing, **check)


def install(directory: Path, act: Act) -> Path:
    """Write the executable; return its path."""
    path = directory / "firecracker"
    path.with_suffix(".act").write_text(json.dumps(asdict(act)))
    # -I -S: no site-packages are needed, and it starts in half the time.
    path.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import fakes\nfakes.main()\n"
    )
    path.chmod(0o755)
    return path


def main() -> None:
    """Be Firecracker."""
    act = Act(**json.loads(Path(sys.argv[0]).with_suffix(".act").read_text()))
    api_socket = sys.argv[sys.argv.index("--api-sock") + 1]
    if act.dies_with:
        print(act.dies_with, flush=True)
        sys.exit(1)
    firecracker = Firecracker(act, Path(api_socket).parent)
    if act.socket:
        firecracker.serve(api_socket)
    firecracker.started.wait()
    Guest(firecracker).play()


def _serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    """Handle each connection in a thread of its own."""

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=handle, args=[connection], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _answer(connection: socket.socket, status: str, content: dict[str, str] | None) -> None:
    body = json.dumps(content) if content else ""
    length = f"Content-Length: {len(body)}\r\n" if content else ""
    connection.sendall(f"HTTP/1.1 {status}\r\n{length}\r\n{body}".encode())


class Firecracker:
    """The API's state machine: resources are configured, then the instance is started."""

    # The bodies' fields, required ones first, then "/", then optional ones.
    FIELDS: Mapping[str, str] = {
        "/machine-config": "vcpu_count mem_size_mib / smt track_dirty_pages huge_pages",
        "/boot-source": "kernel_image_path / boot_args initrd_path",
        "/drives/rootfs": "drive_id is_root_device / path_on_host is_read_only cache_type",
        "/drives/config": "drive_id is_root_device / path_on_host is_read_only cache_type",
        "/drives/overlay": "drive_id is_root_device / path_on_host is_read_only cache_type",
        "/network-interfaces/eth0": "host_dev_name iface_id / guest_mac",
        "/mmds/config": "network_interfaces / version ipv4_address",
        "/vsock": "guest_cid uds_path / vsock_id",
        "/entropy": "/ rate_limiter",
        "/actions": "action_type /",
    }

    def __init__(self, act: Act, run_dir: Path) -> None:
        self.act = act
        self.run_dir = run_dir
        self.started = threading.Event()
        self.running = False  # the guest's program runs: its ports answer
        self.stop = threading.Event()
        self.bodies: dict[str, dict[str, Any]] = {}
        self.connections = 0

    def serve(self, api_socket: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(api_socket)
        listener.listen()
        _serve(listener, self._api)

    def _api(self, connection: socket.socket) -> None:
        """Answer the requests of one connection; http.server is slow to import."""
        self.connections += 1
        with connection, connection.makefile("rb") as file:
            if self.connections > MAX_CONNECTIONS:
                error = {"error": "Too many open connections"}
                _answer(connection, "503 Service Unavailable", error)
            while request := file.readline().split():
                length = 0
                while header := file.readline().strip().lower():
                    if header.startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                body = json.loads(file.read(length) or b"{}")
                path = request[1].decode()
                if request[0] == b"GET":
                    _answer(connection, "200 OK", {"firecracker_version": VERSION})
                elif fault := self.put(path, body):
                    _answer(connection, "400 Bad Request", {"fault_message": fault})
                else:
                    _answer(connection, "204 No Content", None)
                    if path == "/actions":
                        self.started.set()
        self.connections -= 1

    def put(self, path: str, body: dict[str, Any]) -> str | None:
        """Take one PUT; return the fault message when it is refused."""
        if path == self.act.hang:
            threading.Event().wait()
        if path == self.act.die:
            os._exit(1)
        if fault := self.act.refuse.get(path):
            return fault
        if fault := self._fault_of(path, body):
            return fault
        if path == "/actions":
            return self._act(body["action_type"])
        if self.started.is_set():
            return "The requested operation is not supported after starting the microVM."
        if path == "/mmds/config" and not self._has_interfaces(body["network_interfaces"]):
            return "The list of network interface IDs contains one that does not exist."
        if path == "/mmds" and "/mmds/config" not in self.bodies:
            return "The MMDS is not configured."
        if (drive := body.get("path_on_host")) and not Path(drive).is_file():
            return f"Unable to open the block device file {drive}"
        if path == "/vsock":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(body["uds_path"])
            listener.listen()
            _serve(listener, self._port)
        self.bodies[path] = body
        with (self.run_dir / "calls.jsonl").open("a") as calls:
            print(json.dumps([path, body]), file=calls)
        return None

    def _fault_of(self, path: str, body: dict[str, Any]) -> str | None:
        if path == "/mmds":
            return None  # anything
        if path not in self.FIELDS:
            return f"Invalid request method and/or path: PUT {path[1:]}."
        required, _, optional = self.FIELDS[path].partition("/")
        for name in required.split():
            if name not in body:
                return f"An error occurred when deserializing the json body: missing field `{name}`"
        for name in set(body) - set(required.split()) - set(optional.split()):
            return f"An error occurred when deserializing the json body: unknown field `{name}`"
        return None

    def _has_interfaces(self, names: Sequence[str]) -> bool:
        return all(f"/network-interfaces/{name}" in self.bodies for name in names)

    def _act(self, action: str) -> str | None:
        if action == "SendCtrlAltDel":
            self.stop.set()
            return None
        if "/boot-source" not in self.bodies:
            return "Cannot start microvm without kernel configuration."
        if self.started.is_set():
            return "The requested operation is not supported after starting the microVM."
        return None  # it starts once this is answered

    def _port(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb", buffering=0) as file:
            port = int(file.readline().split()[1])
            if not self.running or port not in (CONTROL, FORWARD):
                return  # as Firecracker does when nobody listens there in the guest
            file.write(b"OK 1073741824\n")
            line = file.readline().decode().strip()
            if port == CONTROL:
                if self.act.control is None:
                    return
                if not self.act.control:
                    threading.Event().wait()
                file.write(self.act.control.encode())
                if line == "stop" and self.act.control == "ok\n":
                    self.stop.set()
            elif greeting := self.act.greets.get(line.removeprefix("tcp ")):
                file.write(b"ok\n" + greeting.encode())
                file.readline()  # until the host has seen enough
            elif (answer := self.act.http.get(line.removeprefix("tcp "))) is None:
                file.write(b"error ECONNREFUSED\n")
            else:
                file.write(b"ok\n")
                while file.readline().strip():  # the request's header
                    pass
                connection.sendall(answer.encode())


class Guest:
    """PID 1 and its program, in one script."""

    def __init__(self, firecracker: Firecracker) -> None:
        self.firecracker = firecracker
        uds = firecracker.bodies["/vsock"]["uds_path"] if "/vsock" in firecracker.bodies else ""
        self.uds = uds
        self.connections: dict[int, socket.socket] = {}

    def play(self) -> None:
        for name, *arguments in self.firecracker.act.guest:
            getattr(self, f"do_{name}")(*arguments)
        time.sleep(3600)

    def do_connect(self) -> None:
        for port in (EVENTS, STDOUT, STDERR):
            self.connections[port] = socket.socket(socket.AF_UNIX)
            self.connections[port].connect(f"{self.uds}_{port}")

    def do_event(self, fields: dict[str, Any]) -> None:
        # Before the host hears of it, or it could ask too early.
        self.firecracker.running |= fields["event"] == "exec"
        self.do_raw(json.dumps(fields) + "\n")

    def do_raw(self, text: str, times: int = 1) -> None:
        if not self.connections:
            self.do_connect()
        with contextlib.suppress(OSError):  # the host may have seen enough
            self.connections[EVENTS].sendall(text.encode() * times)

    def do_print(self, text: str, port: int = STDOUT) -> None:
        self.connections[port].sendall(text.encode())

    def do_console(self, text: str) -> None:
        print(text, flush=True)

    def do_console_verbose(self, text: str) -> None:
        """Print what a kernel says when it was not told to be quiet."""
        if "quiet" not in self.firecracker.bodies["/boot-source"]["boot_args"].split():
            self.do_console(text)

    def do_await_stop(self) -> None:
        self.firecracker.stop.wait()

    def do_await_close(self) -> None:
        self.connections[EVENTS].shutdown(socket.SHUT_WR)
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                connection.recv(1)

    def do_intrude(self) -> None:
        """Connect a second time to the event port, as some other program in the guest may."""
        with socket.socket(socket.AF_UNIX) as second:
            try:
                second.connect(f"{self.uds}_{EVENTS}")
            except OSError as error:
                self.do_console(f"refused: {type(error).__name__}")
            else:
                self.do_console("accepted")

    def do_keep_drive(self, drive: str, to: str) -> None:
        """Copy a drive, and write down the modes of its file and that file's directory."""
        path = Path(self.firecracker.bodies[f"/drives/{drive}"]["path_on_host"])
        Path(to).write_bytes(path.read_bytes())
        modes = [place.stat().st_mode & 0o7777 for place in (path, path.parent)]
        Path(to).with_suffix(".mode").write_text(json.dumps(modes))

    def do_soil(self, drive: str) -> None:
        """Write to a drive."""
        Path(self.firecracker.bodies[f"/drives/{drive}"]["path_on_host"]).write_text("used")

    def do_leave_once(self, mark: str) -> None:
        """Leave, but not the second time."""
        if not Path(mark).exists():
            Path(mark).touch()
            self.do_leave(0)

    def do_keep_calls(self, to: str) -> None:
        Path(to).write_bytes((self.firecracker.run_dir / "calls.jsonl").read_bytes())

    def do_close(self) -> None:
        for connection in self.connections.values():
            connection.close()

    def do_hang(self) -> None:
        threading.Event().wait()

    def do_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def do_leave(self, status: int) -> None:
        os._exit(status)
