"""What a guest may send: bytes changed at random, the same ones in every run, are an answer or a
complaint and never another exception."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator, Sequence

import pytest

from fcbuild.checks import attempt
from fcbuild.spec import HttpCheck, TcpCheck
from fcbuild.vmm.link import MAX_LINE, Broken, Event, parse_event
from fcbuild.vmm.machine import Exit, Health, read_exit, read_health

EVENTS = [
    b'{"event":"init","t":27644126,"contract":2,"start":26241000}',
    b'{"event":"exit","t":1,"code":137,"signal":9,"oom":true,"stdout":3,"stderr":0}',
    b'{"event":"health","t":9,"status":"unhealthy","failing":3,"code":-1,"output":"no\\n\\ufffd"}',
    b'{"event":"fail","t":2,"stage":"init","reason":"boot-config","error":"record 1: \\"x\\""}',
    b"[" * (MAX_LINE - 1),
    b'{"event":"end","t":' + b"9" * 4000 + b"}",
    b'{"event":"exit","t":1e400,"code":NaN}',
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHi\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nHi",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHi",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nHi\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-10\r\nHi\r\n",
    b"HTTP/1.1 204 \xff\r\nX: \xff\r\n folded\r\nContent-Length: -1\r\n\r\n",
]
PIECES = [b"\0", b"\xff", b"\r\n", b"\n", b":", b'"', b"\\u", b"-1", b"1e9", b"true", b"null", b"{"]


def changed(random: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds with a few places changed."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(data))
        cut = random.choice((0, 0, 1, 2, 20))
        piece = random.choice((b"", random.randbytes(1), random.choice(PIECES)))
        data[at : at + cut] = piece
    return bytes(data)


def inputs(seeds: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Yield the seeds, and `count` changed ones."""
    source = random.Random(3)
    yield from seeds
    yield from (changed(source, seeds) for _ in range(count))


def test_events() -> None:
    """A line is an event with a name and a time, or is reported as none; so are its fields."""
    found = {Event: 0, Broken: 0, Exit: 0, Health: 0}
    for line in inputs(EVENTS, 20_000):
        item = parse_event(line)
        found[type(item)] += 1
        if isinstance(item, Broken):
            assert len(item.what) < 500
            continue
        assert isinstance(item.name, str) and type(item.t) is int
        assert isinstance(item.fields, dict) and json.dumps(item.fields)
        if code := read_exit(item):
            found[Exit] += 1
            assert 0 <= code.code <= 255
        if health := read_health(item):
            found[Health] += 1
            assert str(health)
    assert all(count > 100 for count in found.values()), found


@pytest.mark.parametrize(
    ("check", "seeds"),
    [
        (HttpCheck(port=80, path="/x", contains="Hi"), ANSWERS),
        (TcpCheck(port=22, starts_with="SSH-2.0"), [b"SSH-2.0-x\r\n", b"SSH", b""]),
    ],
    ids=["http", "tcp"],
)
def test_answers(check: HttpCheck | TcpCheck, seeds: Sequence[bytes]) -> None:
    """An attempt ends with a verdict, whatever the server sends."""
    passed = 0
    for data in inputs(seeds, 1000):
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            ok, why = attempt(check, lambda connection=ours: connection)  # type: ignore[misc]
            passed += ok
        assert why and len(why) < 1000
    assert 0 < passed < 1000
