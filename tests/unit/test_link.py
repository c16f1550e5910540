"""The host's end of the link: events, output and forwards of a guest that may send anything."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcbuild.errors import VmmError
from fcbuild.vmm import link as links
from fcbuild.vmm.link import (
    EVENTS,
    MAX_LINE,
    STDERR,
    STDOUT,
    Broken,
    Ended,
    Event,
    Item,
    Line,
    Link,
    dial_vsock,
    parse_event,
)

DEADLINE_S = 20.0


@pytest.fixture
def vmm() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose end is the VM's."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def link(short_dir: Path, vmm: subprocess.Popen[bytes]) -> Iterator[Link]:
    link = Link(short_dir / "v.sock", short_dir / "output.log", dial_vsock)
    link.watch(vmm.pid)
    yield link
    link.close()


def dial(link: Link, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE_S)
    try:
        connection.connect(os.fspath(link.path(port)))
    except OSError:
        connection.close()
        raise
    return connection


def items(link: Link, count: int) -> list[Item]:
    return [link.items.get(timeout=DEADLINE_S) for _ in range(count)]


def until_the_end(link: Link) -> list[Item]:
    found: list[Item] = []
    while not found or found[-1] != Ended():
        found.append(link.items.get(timeout=DEADLINE_S))
    return found


def line(name: str, **fields: object) -> bytes:
    return json.dumps({"event": name, "t": 7, **fields}).encode() + b"\n"


def test_an_event_is_read_with_its_fields() -> None:
    event = parse_event(line("exit", code=3).strip())
    assert isinstance(event, Event)
    assert (event.name, event.t, event.fields) == ("exit", 7, {"code": 3})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b"{}",
        b'{"event": "x"}',
        b'{"event": 1, "t": 1}',
        b'{"event": "x", "t": "1"}',
        b'{"event": "x", "t": true}',
        b'{"event": "x", "t": 1.5}',
        b"[" * 4000,
        line("x", pad="y" * MAX_LINE).strip(),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_event_is_broken(data: bytes) -> None:
    found = parse_event(data)
    assert isinstance(found, Broken)
    assert len(found.what) < 400


def test_events_come_in_order_however_they_are_cut(link: Link) -> None:
    data = line("init") + line("mounted") + line("exec")
    with dial(link, EVENTS) as guest:
        for byte in data:
            guest.sendall(bytes([byte]))
        names = [item.name for item in items(link, 3) if isinstance(item, Event)]
    assert names == ["init", "mounted", "exec"]


def test_output_is_kept_as_it_is_and_read_by_lines(link: Link, short_dir: Path) -> None:
    data = b"one\r\ntwo \xff\nthree"
    with dial(link, STDOUT) as guest:
        guest.sendall(data)
    assert items(link, 3) == [Line("one"), Line("two \ufffd"), Line("three")]
    assert (short_dir / "output.log").read_bytes() == data


def test_a_long_line_of_output_is_looked_at_in_pieces(
    link: Link, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_OUTPUT_LINE", 10)
    with dial(link, STDERR) as guest:
        guest.sendall(b"x" * 1000)
    assert link.items.get(timeout=DEADLINE_S) == Line("x" * 1000)
    assert (short_dir / "output.log").read_bytes() == b"x" * 1000


def test_a_second_connection_is_refused_and_the_first_goes_on(link: Link) -> None:
    with dial(link, EVENTS) as guest:
        guest.sendall(line("init"))
        items(link, 1)
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            dial(link, EVENTS)
        guest.sendall(line("mounted"))
        (item,) = items(link, 1)
    assert isinstance(item, Event)
    assert item.name == "mounted"


def test_an_endless_line_is_broken_and_bounded(link: Link) -> None:
    with dial(link, EVENTS) as guest:
        guest.sendall(b"x" * (4 * links._CHUNK))
        (item,) = items(link, 1)
        assert isinstance(item, Broken)
        assert all(len(held.pending) <= MAX_LINE for held in link._guests.values())


def test_too_many_events_are_broken_once(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_EVENTS", 3)
    with dial(link, EVENTS) as guest, dial(link, STDOUT) as out:
        guest.sendall(line("x") * 10)
        found = items(link, 4)
        assert [type(item) for item in found] == [Event, Event, Event, Broken]
        assert found[3] == Broken("more than 3 events")
        # Nothing of the rest comes, and output still does.
        out.sendall(b"after\n")
        assert items(link, 1) == [Line("after")]


@pytest.mark.parametrize("late", [STDOUT, STDERR])
def test_connections_close_only_when_the_counted_output_is_here(link: Link, late: int) -> None:
    guests = {port: dial(link, port) for port in (EVENTS, STDOUT, STDERR)}
    counts = {STDOUT: 0, STDERR: 0, late: 8}
    guests[EVENTS].sendall(line("exit", code=0, stdout=counts[STDOUT], stderr=counts[STDERR]))
    guests[EVENTS].sendall(line("end"))
    items(link, 2)
    guests[late].sendall(b"one\n")
    assert items(link, 1) == [Line("one")]
    # Not all of it is here: still open.
    guests[late].settimeout(0.1)
    with pytest.raises(TimeoutError):
        guests[late].recv(1)
    guests[late].settimeout(DEADLINE_S)
    guests[late].sendall(b"two\n")
    assert items(link, 1) == [Line("two")]
    for guest in guests.values():
        assert guest.recv(1) == b""
        guest.close()


def test_connections_close_at_the_end_of_a_guest_that_failed(link: Link) -> None:
    with dial(link, EVENTS) as guest, dial(link, STDOUT) as out:
        guest.sendall(line("fail", stage="init", error="x") + line("end"))
        assert guest.recv(1) == b""
        assert out.recv(1) == b""


def test_the_end_of_the_process_comes_after_everything_it_sent(
    link: Link, vmm: subprocess.Popen[bytes]
) -> None:
    with dial(link, EVENTS) as guest, dial(link, STDOUT) as out:
        guest.sendall(line("init") * 100)
        out.sendall(b"x\n" * 1000 + b"last")
        vmm.kill()
    found = until_the_end(link)
    assert sum(isinstance(item, Event) for item in found) == 100
    assert found[-2] == Line("last") or isinstance(found[-2], Event)
    assert Line("last") in found


def test_a_connection_that_stays_open_does_not_hide_the_end(
    link: Link, vmm: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_DRAIN_S", 0.1)
    with dial(link, EVENTS) as guest:
        guest.sendall(line("init"))
        items(link, 1)
        vmm.kill()
        assert until_the_end(link) == [Ended()]


def test_close_is_safe_twice_and_leaves_no_thread(link: Link) -> None:
    before = threading.active_count()
    dial(link, EVENTS).close()
    link.close()
    link.close()
    assert threading.active_count() == before - 1


def test_a_path_that_is_too_long_for_a_socket_is_a_vmm_error(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(VmmError, match="too long") as caught:
        Link(deep / "v.sock", deep / "output.log", dial_vsock)
    assert "TMPDIR" in str(caught.value.hint)


@pytest.fixture
def ports(link: Link) -> Iterator[list[bytes]]:
    """Firecracker's end of v.sock: sends a prepared answer to each line that comes."""
    prepared: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(link.uds))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for answer in prepared:
                    lines.readline()
                    connection.sendall(answer)
                with contextlib.suppress(ConnectionResetError):
                    lines.readline()

        thread = threading.Thread(target=serve)
        thread.start()
        yield prepared
        thread.join(DEADLINE_S)


OK = b"OK 1073741824\n"


def test_control_is_answered(link: Link, ports: list[bytes]) -> None:
    ports += [OK, b"ok\n"]
    link.control("stop", DEADLINE_S)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "port 10250 of the guest cannot be reached"),
        ([b"junk\n"], "answered b'junk'"),
        ([OK], "'stop'"),
        ([OK, b"error no such thing\n"], "does not take 'stop': error no such thing"),
        ([OK, b"x" * 10000], "does not take 'stop'"),
    ],
)
def test_control_that_fails_is_a_vmm_error(
    link: Link, ports: list[bytes], answers: list[bytes], said: str
) -> None:
    ports += answers
    with pytest.raises(VmmError) as caught:
        link.control("stop", DEADLINE_S)
    assert said in str(caught.value)


def test_control_without_an_answer_is_a_vmm_error(link: Link) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(link.uds))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(OK)
                while connection.recv(100):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(VmmError):
            link.control("stop", 0.2)
        thread.join(DEADLINE_S)


def test_nobody_at_the_socket_is_a_vmm_error(link: Link) -> None:
    with pytest.raises(VmmError, match="port 10250 of the guest cannot be reached"):
        link.control("stop", DEADLINE_S)


def test_a_forward_carries_what_comes_after_its_answer(link: Link, ports: list[bytes]) -> None:
    ports += [OK, b"ok\nhello"]
    with link.forward(80, DEADLINE_S) as connection:
        assert connection.recv(100) == b"hello"


@pytest.mark.parametrize(
    ("answers", "said"), [([OK, b"error ECONNREFUSED\n"], "ECONNREFUSED"), ([OK], "closed")]
)
def test_a_forward_that_is_refused_says_why(
    link: Link, ports: list[bytes], answers: list[bytes], said: str
) -> None:
    ports += answers
    with pytest.raises(ConnectionError, match=said):
        link.forward(80, DEADLINE_S)
