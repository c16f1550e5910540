"""A proxy in front of a registry, on loopback, that does what networks and registries do.

A Fault says which requests it is for and what becomes of them; each time one is used up it is gone.
What no fault is for goes through.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = 1 << 16


@dataclass
class Fault:
    """What happens to the requests of a method and a path (regular expressions), `times` times.

    status: the answer, with headers, in place of the registry's. cut: the connection ends after so
    many bytes of the answer. flip: the answer's byte at this place is another. pause_s: before
    each piece of the answer. unranged: the registry answers as if no range were asked for.
    hang_s: before anything. drop: the connection ends after so many bytes of the request's body.
    """

    method: str = "GET"
    path: str = ".*"
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    flip: int | None = None
    pause_s: float = 0.0
    unranged: bool = False
    hang_s: float = 0.0
    drop: int | None = None


@dataclass
class Proxy:
    """A running proxy. host: its address and port. seen: method, path and Authorization of each
    request. token: who does not send this is answered 401 and where to get it; None for no login.
    tokens: the requests for one. lists: whether it keeps lists of referrers, as newer registries
    do, two to a page, and what is in them."""

    host: str
    registry: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    token: str | None = None
    tokens: list[tuple[str, str]] = field(default_factory=list)
    lists: bool = False
    referrers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if re.fullmatch(fault.method, method) and re.fullmatch(fault.path, path):
                    fault.times -= 1
                    if fault.times == 0:
                        self.faults.remove(fault)
                    return fault
        return None

    def requests(self, method: str, path: str) -> int:
        """Return how many such requests there were."""
        return sum(bool(re.fullmatch(method, m) and re.fullmatch(path, p)) for m, p, _ in self.seen)


@contextmanager
def proxy(registry: str) -> Iterator[Proxy]:
    """Run a proxy in front of a registry (host:port, plain http)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do(self) -> None:
            handle(self, running)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running = Proxy(f"127.0.0.1:{server.server_address[1]}", registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def handle(request: BaseHTTPRequestHandler, running: Proxy) -> None:
    """Answer one request."""
    path = request.path
    given = request.headers.get("Authorization", "")
    if path.startswith("/token") and (fault := running.take(request.command, path)):
        _answer(request, fault.status or 500, b"{}")
        return
    if path.startswith("/token"):
        length = int(request.headers.get("Content-Length") or 0)
        form = request.rfile.read(length).decode()
        running.tokens.append((path + form, given))
        _answer(request, 200, json.dumps({"token": running.token}).encode())
        return
    running.seen.append((request.command, path, given))
    running.ranges.append(request.headers.get("Range", ""))
    fault = running.take(request.command, path)
    if fault and fault.hang_s:
        time.sleep(fault.hang_s)
    if fault and fault.drop is not None:
        request.rfile.read(fault.drop)
        request.close_connection = True
        return
    if running.token is not None and given != f"Bearer {running.token}":
        realm = f"http://{running.host}/token"
        challenge = f'Bearer realm="{realm}",service="test",scope="repository:x:pull"'
        _drop_body(request)
        _answer(request, 401, b"{}", {"WWW-Authenticate": challenge})
        return
    if fault and fault.status is not None:
        _drop_body(request)
        _answer(request, fault.status, b'{"errors":[{"code":"X","message":"no"}]}', fault.headers)
        return
    if running.lists and request.command == "PUT" and "/manifests/" in path:
        content = b"".join(_body(request, int(request.headers["Content-Length"])))
        request.rfile = io.BytesIO(content)
        _forward(request, running, fault or Fault(), subject=_list(running, content))
        return
    if running.lists and "/referrers/" in path:
        _answer_list(request, running)
        return
    _forward(request, running, fault or Fault())


def _list(running: Proxy, content: bytes) -> str | None:
    """Put a manifest into the list of its subject; return whose that is."""
    document = json.loads(content)
    subject: str | None = document.get("subject", {}).get("digest")
    if subject:
        entry = {
            "mediaType": document["mediaType"],
            "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "size": len(content),
            "artifactType": document["artifactType"],
            "annotations": document.get("annotations", {}),
        }
        listed = running.referrers.setdefault(subject, [])
        if entry not in listed:
            listed.append(entry)
    return subject


def _answer_list(request: BaseHTTPRequestHandler, running: Proxy) -> None:
    path, _, query = request.path.partition("?from=")
    start = int(query or 0)
    listed = running.referrers.get(path.rpartition("/")[2], [])
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": listed[start : start + 2]}
    headers = {"Content-Type": kind}
    if len(listed) > start + 2:
        headers["Link"] = f'<{path}?from={start + 2}>; rel="next"'
    _answer(request, 200, json.dumps(index).encode(), headers)


def _forward(
    request: BaseHTTPRequestHandler, running: Proxy, fault: Fault, subject: str | None = None
) -> None:
    upstream = http.client.HTTPConnection(running.registry, timeout=60)
    dropped = {"host", "connection", "authorization", "expect"}
    if fault.unranged:
        dropped.add("range")
    length = int(request.headers.get("Content-Length") or 0)
    upstream.putrequest(request.command, request.path, skip_host=False, skip_accept_encoding=True)
    for name, value in request.headers.items():  # some are there more than once
        if name.lower() not in dropped:
            upstream.putheader(name, value)
    upstream.endheaders()
    for piece in _body(request, length):
        upstream.send(piece)
    answer = upstream.getresponse()
    request.send_response(answer.status)
    for name, value in answer.getheaders():
        if name.lower() not in {"connection", "transfer-encoding"}:
            # The registry names itself in Locations.
            request.send_header(name, value.replace(running.registry, running.host))
    if subject:
        request.send_header("OCI-Subject", subject)
    if answer.getheader("Content-Length") is None:
        request.send_header("Connection", "close")
        request.close_connection = True
    request.end_headers()
    sent = 0
    try:
        while piece := answer.read(_PIECE):
            if fault.flip is not None and sent <= fault.flip < sent + len(piece):
                at = fault.flip - sent
                piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
            if fault.cut is not None and sent + len(piece) > fault.cut:
                request.wfile.write(piece[: fault.cut - sent])
                request.close_connection = True
                return
            time.sleep(fault.pause_s)
            request.wfile.write(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        request.close_connection = True
    finally:
        upstream.close()


def _body(request: BaseHTTPRequestHandler, length: int) -> Iterator[bytes]:
    while length > 0 and (piece := request.rfile.read(min(_PIECE, length))):
        length -= len(piece)
        yield piece


def _drop_body(request: BaseHTTPRequestHandler) -> None:
    for _ in _body(request, int(request.headers.get("Content-Length") or 0)):
        pass


def _answer(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
) -> None:
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
