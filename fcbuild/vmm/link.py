"""The host's end of the boot contract's link: events, output and forwards over unix sockets.

Firecracker maps vsock to unix sockets: a guest that connects to port P of the host reaches the
socket `<uds>_P`; the host reaches port P of the guest by connecting to `<uds>` and writing
"CONNECT P\\n", answered by "OK <host port>\\n" (docs/vsock.md of Firecracker).

One thread owns all of the guest's connections and watches the VMM's process; what happens is put
on one queue, so a waiter sees output, events and the end in their order. The guest is not trusted:
lines and counts are bounded, and what is not an event is reported as such.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fcbuild.errors import VmmError

# Ports of the boot contract, section 4.
EVENTS, STDOUT, STDERR = 10240, 10241, 10242
CONTROL, FORWARD = 10250, 10251

MAX_LINE = 4096
MAX_EVENTS = 10_000  # a guest that sends more is broken, and must not fill our memory
MAX_OUTPUT_LINE = 1 << 16  # a longer line is looked at in pieces
_DRAIN_S = 2.0  # after the VMM's end, for what its sockets still hold
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Event:
    """One event of the guest. t: ns on the guest's clock; at: seconds on ours, when it came."""

    name: str
    t: int
    at: float
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One line of the program's output, without its end."""

    text: str


@dataclass(frozen=True)
class Broken:
    """The guest sent something that the boot contract does not know."""

    what: str


@dataclass(frozen=True)
class Ended:
    """The VMM's process has ended, and everything the guest had sent has been read."""


Item = Event | Line | Broken | Ended

# How to reach a port of the guest: connect this socket, for that uds and port. Raises OSError.
Dial = Callable[[socket.socket, Path, int], None]


def dial_vsock(connection: socket.socket, uds: Path, port: int) -> None:
    """Reach a port as Firecracker has it: by name, on the one socket for all."""
    connection.connect(str(uds))
    connection.sendall(b"CONNECT %d\n" % port)
    answer = read_line(connection)
    if not answer.startswith(b"OK "):
        raise OSError(f"answered {answer!r}")


def dial_socket(connection: socket.socket, uds: Path, port: int) -> None:
    """Reach a port that has a socket of its own, named like those that we listen on."""
    connection.connect(str(_beside(uds, port)))


class Link:
    """Listens for the guest; `items` is what came, in order."""

    def __init__(self, uds: Path, output: Path, dial: Dial) -> None:
        self.uds = uds
        self._dial = dial
        self.items: queue.Queue[Item] = queue.Queue()
        self._output: IO[bytes] = output.open("wb", buffering=0)
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._guests: dict[int, _Guest] = {}  # by port
        self._events = 0
        self._received = {STDOUT: 0, STDERR: 0}
        self._sent: dict[int, int] | None = None  # what the exit event says of them
        self._said_end = False
        self._thread: threading.Thread | None = None
        for port in (EVENTS, STDOUT, STDERR):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.bind(str(self.path(port)))
            except OSError as error:
                listener.close()
                self.close()
                raise VmmError(
                    f"cannot listen on {self.path(port)}: {error}",
                    hint="a socket's path has at most 107 bytes: set TMPDIR to a short one",
                ) from error
            listener.listen(4)
            self._selector.register(listener, selectors.EVENT_READ, port)

    def path(self, port: int) -> Path:
        """Return the socket at which a guest reaches this port of the host."""
        return _beside(self.uds, port)

    def watch(self, pid: int) -> None:
        """Start listening; pid is the process whose end is the VM's."""
        pidfd = os.pidfd_open(pid)
        self._selector.register(pidfd, selectors.EVENT_READ, pidfd)
        self._thread = threading.Thread(target=self._serve, name="guest link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._waker.fileno() < 0:
            return
        self._waker.close()
        if self._thread:
            self._thread.join()
        for registered in list(self._selector.get_map().values()):
            _close(registered.fileobj)
        self._selector.close()
        self._output.close()

    def connect(self, port: int, timeout_s: float) -> socket.socket:
        """Connect to a port of the guest. Raises VmmError when nobody listens there."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            self._dial(connection, self.uds, port)
        except OSError as error:
            connection.close()
            raise VmmError(f"port {port} of the guest cannot be reached: {error}") from error
        return connection

    def control(self, line: str, timeout_s: float) -> None:
        """Give PID 1 one order. Raises VmmError unless it answers ok."""
        with self.connect(CONTROL, timeout_s) as connection:
            try:
                connection.sendall(f"{line}\n".encode())
                answer = read_line(connection).decode("utf-8", "replace")
            except OSError as error:
                raise VmmError(f"PID 1 does not answer {line!r}: {error}") from error
        if answer != "ok":
            raise VmmError(f"PID 1 does not take {line!r}: {answer or 'no answer'}")

    def forward(self, port: int, timeout_s: float) -> socket.socket:
        """Connect to a TCP port inside the guest. Raises ConnectionError when that is refused."""
        connection = self.connect(FORWARD, timeout_s)
        try:
            connection.sendall(b"tcp %d\n" % port)
            answer = read_line(connection).decode("utf-8", "replace")
        except OSError:
            connection.close()
            raise
        if answer != "ok":
            connection.close()
            raise ConnectionError(answer.removeprefix("error ") or "closed by the guest")
        return connection

    def _serve(self) -> None:
        ending: float | None = None  # when to give up on what the ended VMM's sockets still hold
        while True:
            timeout = None if ending is None else max(0.0, ending - time.monotonic())
            ready = self._selector.select(timeout)
            for key, _ in ready:
                if key.fileobj is self._wake:
                    return
                if key.fileobj is key.data:  # the pidfd
                    self._selector.unregister(key.fileobj)
                    _close(key.fileobj)
                    ending = time.monotonic() + _DRAIN_S
                elif isinstance(key.fileobj, socket.socket) and isinstance(key.data, int):
                    self._accept(key.fileobj, key.data)
                elif isinstance(key.data, _Guest):
                    self._read(key.data)
            if self._said_end and self._all_received():
                for guest in list(self._guests.values()):
                    self._drop(guest)
            if ending is None:
                continue
            # Nothing more can come once a last look found nothing and nobody is connected.
            if time.monotonic() >= ending or not (self._guests or ready):
                self.items.put(Ended())
                return
            if not self._guests:
                ending = time.monotonic()

    def _accept(self, listener: socket.socket, port: int) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        # PID 1 connects before anything else runs; a later one is not it.
        self._selector.unregister(listener)
        listener.close()
        self.path(port).unlink(missing_ok=True)
        connection.settimeout(0)
        self._guests[port] = _Guest(connection, port)
        self._selector.register(connection, selectors.EVENT_READ, self._guests[port])

    def _read(self, guest: _Guest) -> None:
        try:
            data = guest.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if guest.port != EVENTS:
            self._output.write(data)
            self._received[guest.port] += len(data)
        limit = MAX_LINE if guest.port == EVENTS else MAX_OUTPUT_LINE
        *lines, guest.pending = (guest.pending + data).split(b"\n")
        if len(guest.pending) > limit:
            lines.append(guest.pending)
            guest.pending = b""
        for line in lines:
            if guest.port == EVENTS:
                self._event(line)
            else:
                self.items.put(_line(line))
        if not data:
            self._drop(guest)

    def _drop(self, guest: _Guest) -> None:
        if guest.pending and guest.port != EVENTS:
            self.items.put(_line(guest.pending))
        del self._guests[guest.port]
        self._selector.unregister(guest.connection)
        guest.connection.close()

    def _all_received(self) -> bool:
        """Whether the output that the guest says it sent is here. Firecracker shows no half-closed
        connection, so it is counted: section 4 of the boot contract."""
        wanted = self._sent or {}
        return all(
            port not in self._guests or got >= wanted.get(port, 0)
            for port, got in self._received.items()
        )

    def _event(self, line: bytes) -> None:
        self._events += 1
        if self._events > MAX_EVENTS:
            if self._events == MAX_EVENTS + 1:
                self.items.put(Broken(f"more than {MAX_EVENTS} events"))
            return
        item = parse_event(line)
        if isinstance(item, Event):
            self._said_end |= item.name == "end"
            if item.name == "exit":
                out, err = item.fields.get("stdout"), item.fields.get("stderr")
                if type(out) is int and type(err) is int:
                    self._sent = {STDOUT: out, STDERR: err}
        self.items.put(item)


@dataclass
class _Guest:
    connection: socket.socket
    port: int
    pending: bytes = b""


def _beside(uds: Path, port: int) -> Path:
    return uds.with_name(f"{uds.name}_{port}")


def _line(data: bytes) -> Line:
    return Line(data.decode("utf-8", "replace").rstrip("\r"))


def parse_event(line: bytes) -> Event | Broken:
    """Read one line of the event stream, which may hold anything."""
    if len(line) <= MAX_LINE:
        try:
            fields = json.loads(line)
            name, t = fields.pop("event"), fields.pop("t")
            if isinstance(name, str) and type(t) is int:
                return Event(name, t, time.monotonic(), fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
    return Broken(f"not an event: {line[:80]!r}")


def read_line(connection: socket.socket) -> bytes:
    """Read a short answer, one byte at a time so that nothing after it is taken."""
    line = b""
    while len(line) < MAX_LINE:
        byte = connection.recv(1)
        if byte in {b"", b"\n"}:
            break
        line += byte
    return line


def _close(file: Any) -> None:
    if isinstance(file, int):
        os.close(file)
    else:
        file.close()
