"""PID 1 whose link is a port, as on 64-bit ARM in QEMU: a pseudo-terminal in the port's place.

At the other end is the launcher's bridge, whose unix sockets are where the tests of the link look
for them. So these are those tests, as far as the transport has a part in them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fcbuild.vmm.bridge import Bridge
from tests.programs import test_guest_link as over_sockets
from tests.programs.test_guest_link import (
    BOOT_SECONDS,
    CONTROL,
    EVENTS,
    FORWARD,
    STDERR,
    STDOUT,
    Binaries,
    Guest,
    boot_config,
    build,
    tool,
)


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    return build(tmp_path_factory.mktemp("guest"), "", "PORT=yes")


class PortGuest(Guest):
    """A boot whose link is a pseudo-terminal."""

    bridge: Bridge | None = None
    host = -1  # the launcher's end of it

    def start(
        self,
        config: bytes,
        listen: Sequence[int] = (EVENTS, STDOUT, STDERR),
        unread: Sequence[int] = (),
    ) -> None:
        host, guest = os.openpty()
        self.host = host
        tty.setraw(guest)
        (self.directory / "port").write_text(os.ttyname(guest))
        (self.directory / "link" / "port").touch()
        near, far = socket.socketpair()
        ends = [
            threading.Thread(target=carry_in, args=[host, far, guest], daemon=True),
            threading.Thread(target=carry_out, args=[far, host], daemon=True),
        ]
        self.bridge = Bridge(
            connect=[Path(self.socket_path(port)) for port in (CONTROL, FORWARD)],
            listen=[Path(self.socket_path(port)) for port in (EVENTS, STDOUT, STDERR)],
            logs=(),
        )
        for end in ends:
            end.start()
        self.bridge.start(near)
        super().start(config, listen, unread)

    def close(self) -> None:
        super().close()
        if self.bridge:
            self.bridge.close()


def carry_in(host: int, link: socket.socket, guest: int) -> None:
    """Carry what the guest sends until nobody has the pseudo-terminal open; then the link ends."""
    with suppress(OSError):
        while data := os.read(host, 1 << 16):
            if guest >= 0:  # the guest has it open too by now
                os.close(guest)
                guest = -1
            link.sendall(data)
    with suppress(OSError):  # not close: carry_out reads from it
        link.shutdown(socket.SHUT_RDWR)


def carry_out(link: socket.socket, host: int) -> None:
    with suppress(OSError), link:
        while data := link.recv(1 << 12):
            os.write(host, data)


@pytest.fixture
def guest(binaries: Binaries, tmp_path: Path) -> Iterator[PortGuest]:
    made = PortGuest(binaries, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    "test",
    [
        over_sockets.test_what_the_program_gets,
        over_sockets.test_the_system_around_it,
        over_sockets.test_events,
        over_sockets.test_large_output,
        over_sockets.test_stop_by_control,
        over_sockets.test_control_requests,
        over_sockets.test_forward_limit,
        over_sockets.test_no_host,
        over_sockets.test_a_host_that_goes_away,
        over_sockets.test_nothing_waits_for_a_time,
        over_sockets.test_the_mounts_of_an_overlay_root,
        over_sockets.test_handover,
        over_sockets.test_an_init_that_does_not_stop,
        over_sockets.test_an_init_that_cannot_be_executed,
        over_sockets.test_services_beside_an_init,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_over_a_port(guest: Guest, test: Callable[[Guest], None]) -> None:
    test(guest)


@pytest.mark.parametrize("family", ["4", "6"])
def test_forward_over_a_port(guest: Guest, family: str) -> None:
    over_sockets.test_forward(guest, family)


def test_a_host_that_breaks_the_rules_is_left_alone(guest: PortGuest) -> None:
    """All connections end, as with a host that goes away; the program goes on."""
    guest.start(boot_config(["/probe", "serve", "8080"]))
    guest.await_output(b"ready\n")
    os.write(guest.host, b"\xff" * 9)
    for stream in guest.streams.values():
        assert stream.ended.wait(BOOT_SECONDS)
    (program,) = guest.children()
    os.kill(program, signal.SIGKILL)
    guest.wait()
    assert not [event for event in guest.events() if event["event"] == "exit"]


def test_a_program_in_the_guest_is_not_the_host(guest: PortGuest) -> None:
    """Whoever else connects to PID 1's ports is not listened to."""
    guest.start(boot_config(["/probe", "serve", "8080"]))
    guest.await_output(b"ready\n")
    net = f"/proc/{guest.pid1()}/ns/net"
    script = """
import socket
with socket.socket(socket.AF_UNIX) as stranger:
    stranger.connect(b"\\0fcbuild/control".ljust(108, b"\\0"))
    stranger.settimeout(10)
    try:
        stranger.sendall(b"signal 9\\n")
        print(stranger.recv(9))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""
    assert tool("nsenter", f"--net={net}", sys.executable, "-c", script) == "b''"
    assert guest.ask(b"signal 9\n") == b"ok\n"
    guest.wait()
    assert guest.event("exit")["signal"] == 9
