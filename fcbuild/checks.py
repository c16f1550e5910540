"""The attempts that image.toml's checks are made of: one connection to the guest, one answer.

What comes from the guest may be anything: time and size are bounded.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from fcbuild.errors import VmmError
from fcbuild.spec import HttpCheck, TcpCheck

ATTEMPT_S = 10.0  # for one attempt
MAX_BODY = 1 << 20  # bytes of an answer that are looked at


def attempt(check: HttpCheck | TcpCheck, connect: Callable[[], Any]) -> tuple[bool, str]:
    """Make one attempt over a connection to the guest's port; return whether the answer is as
    expected, and why."""
    return http_get(check, connect) if isinstance(check, HttpCheck) else tcp_read(check, connect)


def http_get(check: HttpCheck, connect: Callable[[], Any]) -> tuple[bool, str]:
    """Make one request over the connection; return whether its answer is as expected, and why."""
    connection = http.client.HTTPConnection("guest", check.port, timeout=ATTEMPT_S)
    late = threading.Event()

    def give_up() -> None:
        # A time limit of the socket's starts anew with each byte that comes.
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(ATTEMPT_S, give_up)
    try:
        connection.sock = sock = connect()
        sock.settimeout(ATTEMPT_S)
        timer.start()
        connection.request("GET", check.path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(MAX_BODY)
    # ValueError: what http.client makes of a chunk with a negative length.
    except (OSError, http.client.HTTPException, VmmError, ValueError) as error:
        return (
            False,
            f"expected status {check.status}, got no answer: {error or type(error).__name__}",
        )
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():
        return False, f"expected status {check.status}, got no whole answer in {ATTEMPT_S:g} s"
    if answer.status != check.status:
        return False, f"expected status {check.status}, got {answer.status}"
    if check.contains and check.contains.encode() not in body:
        shown = body[:80].decode("utf-8", "replace")
        return False, f"expected a body with {check.contains!r}, got {shown!r}"
    return True, f"status {answer.status}, {len(body)} bytes"


def tcp_read(check: TcpCheck, connect: Callable[[], Any]) -> tuple[bool, str]:
    """Read what a server says first; return whether it is as expected, and why."""
    wanted, got = check.starts_with.encode(), b""
    until = time.monotonic() + ATTEMPT_S
    try:
        with connect() as connection:
            while len(got) < len(wanted):
                connection.settimeout(max(0.001, until - time.monotonic()))
                data = connection.recv(len(wanted) - len(got))
                if not data:
                    break
                got += data
    except TimeoutError:
        pass  # what came until then is the answer
    except (OSError, VmmError) as error:
        return False, f"got no connection: {error or type(error).__name__}"
    if got != wanted:
        return False, f"expected {check.starts_with!r}, got {got.decode('utf-8', 'replace')!r}"
    return True, f"got {check.starts_with!r}" if wanted else "connected"
