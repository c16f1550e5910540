"""One attempt of a check, against a server that may send anything."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fcbuild import checks
from fcbuild.checks import attempt, http_get
from fcbuild.errors import VmmError
from fcbuild.spec import HttpCheck, LogCheck, TcpCheck

DEADLINE_S = 20.0
CHECK = HttpCheck(port=80, path="/x", contains="Hi")
OK = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHi\n"

Serve = Callable[[socket.socket], None]


@pytest.fixture
def get() -> Iterator[Callable[[Serve], tuple[bool, str]]]:
    """Make one request to a server that does as told."""
    threads: list[threading.Thread] = []

    def get(serve: Serve) -> tuple[bool, str]:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                theirs.recv(65536)
                serve(theirs)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return attempt(CHECK, lambda: ours)

    yield get
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


Get = Callable[[Serve], tuple[bool, str]]


def sends(data: str) -> Serve:
    return lambda connection: connection.sendall(data.encode("latin-1"))


def test_the_answer_that_is_expected_passes(get: Get) -> None:
    assert get(sends(OK)) == (True, "status 200, 3 bytes")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OK.replace("200", "404"), "expected status 200, got 404"),
        (OK.replace("Hi\n", "Ho\n"), "expected a body with 'Hi', got 'Ho\\n'"),
        ("HTTP/1.1 200 OK\r\n\r\n", "expected a body with 'Hi', got ''"),
        ("garbage\r\n\r\n", "got no answer"),
        ("", "got no answer"),
        ("HTTP/1.1 abc\r\n\r\n", "got no answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "got no answer"),
        ("HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 200 + "\r\n", "got no answer"),
        ("HTTP/1.1 200 OK\r\nX: " + "y" * 70_000 + "\r\n\r\n", "got no answer"),
        (OK.replace("Hi\n", "\xff\xfe\xfd"), "got '\ufffd\ufffd\ufffd'"),
    ],
    ids=lambda text: text[:40],
)
def test_another_answer_fails_and_says_what_came(get: Get, answer: str, said: str) -> None:
    ok, detail = get(sends(answer))
    assert not ok
    assert said in detail


def drip(before: bytes, drop: bytes) -> Serve:
    """Send a drop again and again, until nobody takes it."""

    def serve(connection: socket.socket) -> None:
        try:
            connection.sendall(before)
            while True:
                connection.sendall(drop)
                time.sleep(0.02)
        except OSError:
            pass

    return serve


@pytest.mark.parametrize(
    ("before", "drop"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"Hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"Hi"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "status", "header", "body", "counted body", "continue"],
)
def test_an_answer_that_does_not_end_is_given_up(
    get: Get, monkeypatch: pytest.MonkeyPatch, before: bytes, drop: bytes
) -> None:
    monkeypatch.setattr(checks, "ATTEMPT_S", 0.3)
    ok, detail = get(drip(before, drop))
    assert not ok
    assert "expected status 200, got no" in detail


def test_a_large_answer_is_looked_at_in_part(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_BODY", 10)
    assert get(sends("HTTP/1.1 200 OK\r\n\r\nHi" + "x" * 50)) == (True, "status 200, 10 bytes")


@pytest.mark.parametrize("error", [VmmError("no port"), ConnectionRefusedError("ECONNREFUSED")])
def test_no_connection_is_an_attempt_that_failed(error: Exception) -> None:
    def connect() -> socket.socket:
        raise error

    assert http_get(CHECK, connect) == (False, f"expected status 200, got no answer: {error}")


@pytest.fixture
def read() -> Iterator[Callable[..., tuple[bool, str]]]:
    """Read what a server says, which does as told."""
    threads: list[threading.Thread] = []

    def read(starts_with: str, serve: Serve) -> tuple[bool, str]:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                serve(theirs)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return attempt(TcpCheck(port=22, starts_with=starts_with), lambda: ours)

    yield read
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


Read = Callable[[str, Serve], tuple[bool, str]]


@pytest.mark.parametrize(
    ("starts_with", "sent", "expected"),
    [
        ("SSH-2.0", "SSH-2.0-OpenSSH_10\r\n", (True, "got 'SSH-2.0'")),
        ("SSH-2.0", "SSH-1.5-x", (False, "expected 'SSH-2.0', got 'SSH-1.5'")),
        ("SSH-2.0", "SSH", (False, "expected 'SSH-2.0', got 'SSH'")),
        ("SSH-2.0", "", (False, "expected 'SSH-2.0', got ''")),
        ("ü", "\xff\xfe", (False, "expected 'ü', got '\ufffd\ufffd'")),
        ("", "anything", (True, "connected")),
        ("", "", (True, "connected")),
    ],
)
def test_what_a_server_says_first_is_compared(
    read: Read, starts_with: str, sent: str, expected: tuple[bool, str]
) -> None:
    def serve(connection: socket.socket) -> None:
        for byte in sent.encode("latin-1"):
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                return

    assert read(starts_with, serve) == expected


@pytest.mark.parametrize("drop", [b"", b"S"], ids=["silence", "drip"])
def test_a_server_that_does_not_say_it_is_given_up(
    read: Read, monkeypatch: pytest.MonkeyPatch, drop: bytes
) -> None:
    monkeypatch.setattr(checks, "ATTEMPT_S", 0.2)

    def serve(connection: socket.socket) -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                connection.sendall(drop)
            except OSError:
                return
            time.sleep(0.02)

    begun = time.monotonic()
    ok, detail = read("S" * 10_000, serve)
    assert not ok
    assert ("got 'S" if drop else "got ''") in detail
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("error", [VmmError("no port"), ConnectionRefusedError("ECONNREFUSED")])
def test_no_connection_to_a_tcp_port_is_an_attempt_that_failed(error: Exception) -> None:
    def connect() -> socket.socket:
        raise error

    assert attempt(TcpCheck(port=1), connect) == (False, f"got no connection: {error}")


def test_checks_read_as_people_say_them() -> None:
    assert str(CHECK) == "http :80/x -> 200 and a body with 'Hi'"
    assert str(LogCheck(pattern="a")) == "log /a/"
    assert str(TcpCheck(port=22, starts_with="SSH")) == "tcp :22 -> 'SSH'"
    assert str(TcpCheck(port=22)) == "tcp :22"
