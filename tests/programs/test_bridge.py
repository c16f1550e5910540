"""Bridge and agent together, the agent as an ordinary process and a script for Firecracker."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fcbuild.errors import VmmError
from fcbuild.vmm.bridge import Bridge
from fcbuild.vmm.hostlink import (
    FRAME_BYTES,
    WINDOW_BYTES,
    AgentConfig,
    Decoder,
    Frame,
    Violation,
    encode,
    encode_u32,
)

SOURCES = Path(__file__).parents[2] / "fcbuild" / "kvmhost"
DEADLINE_S = 20.0

# Stands in for Firecracker: serves api.sock, one command line for each connection.
STAND_IN = textwrap.dedent(
    """\
    import os, socket, sys, threading, time

    base, delay = sys.argv[1], float(sys.argv[2])
    print("starting", flush=True)
    with open(base + "/fc.log", "w") as log:
        log.write("a line for the log\\n")

    def serve(sock):
        reader = sock.makefile("rb")
        command, *rest = reader.readline().decode().split()
        if command == "echo":
            while data := reader.read1(65536):
                sock.sendall(data)
        elif command == "source":
            for _ in range(int(rest[0])):
                sock.sendall(b"s" * 65536)
        elif command == "sink":
            size = 0
            while data := reader.read1(65536):
                size += len(data)
            sock.sendall(b"%d" % size)
        elif command == "dial":
            with socket.socket(socket.AF_UNIX) as dialled:
                dialled.connect(base + "/v.sock_1")
                if len(rest) == 1:
                    dialled.sendall(rest[0].encode())
                dialled.shutdown(socket.SHUT_WR)
                answer = b""
                while data := dialled.recv(65536):
                    answer += data
            sock.sendall(b"heard " + answer)
        elif command == "watch":  # until the client goes
            sock.sendall(b"w")
            reader.read()
            with open(base + "/gone", "w"):
                pass
        elif command == "leave":  # with this in the socket's buffer
            sock.setblocking(False)
            size = 0
            try:
                while True:
                    size += sock.send(b"l" * 4096)
            except BlockingIOError:
                pass
            print("left", size, flush=True)
            os._exit(int(rest[0]))
        elif command == "kill":
            os.kill(os.getpid(), int(rest[0]))
        sock.close()

    time.sleep(delay)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(base + "/api.sock")
    listener.listen(128)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    """
)


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("agent") / "agent"
    sources = [SOURCES / name for name in ("agent.c", "config.c", "mux.c")]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [cc, "-std=c17", "-D_GNU_SOURCE", "-O1", *warnings, "-o", out, *sources], check=True
    )
    return out


def start_agent(agent: Path, link: socket.socket, base: Path, argv: list[str]) -> Agent:
    config = AgentConfig(
        argv=argv,
        connect=[base / "api.sock"],
        listen=[base / "v.sock_1"],
        logs=[base / "fc.log"],
        disks=[],
    )
    (base / "agent.conf").write_bytes(config.encode())
    fd = link.fileno()
    return subprocess.Popen(
        [agent, "--link", str(fd), "--config", base / "agent.conf"],
        pass_fds=[fd],
        stderr=subprocess.DEVNULL,
    )


Agent = subprocess.Popen[bytes]


class Rig:
    """An agent below l1, a bridge below host, and a script that is Firecracker."""

    def __init__(self, agent: Path, base: Path, *, delay_s: float, argv: list[str] | None) -> None:
        self.host, self.l1 = base / "host", base / "l1"
        self.host.mkdir()
        self.l1.mkdir()
        (base / "stand_in.py").write_text(STAND_IN)
        script = [sys.executable, "-S", str(base / "stand_in.py"), str(self.l1), str(delay_s)]
        self.bridge = Bridge(
            connect=[self.host / "api.sock"],
            listen=[self.host / "v.sock_1"],
            logs=[self.host / "console.log", self.host / "fc.log"],
        )
        ours, theirs = socket.socketpair()
        self.agent = start_agent(agent, theirs, self.l1, argv or script)
        theirs.close()
        self.bridge.start(ours)

    def connect(self, command: str = "") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE_S)
        try:
            sock.connect(os.fspath(self.host / "api.sock"))
            sock.sendall(command.encode())
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, command: str, data: bytes = b"") -> bytes:
        with self.connect(command) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return rest_of(sock)

    def status(self) -> int:
        assert self.bridge.link_ended.wait(DEADLINE_S)
        assert self.agent.wait(DEADLINE_S) == 0
        assert self.bridge.trouble is None
        assert self.bridge.status is not None
        return self.bridge.status

    def close(self) -> None:
        self.agent.kill()
        self.agent.wait()
        self.bridge.close()


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def send_all(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def rest_of(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


Start = Callable[..., Rig]


@pytest.fixture
def base() -> Iterator[Path]:
    # Unix sockets need a short path, and tmp_path is long.
    with tempfile.TemporaryDirectory(prefix="fcb") as directory:
        yield Path(directory)


@pytest.fixture
def start(agent: Path, base: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as rigs:

        def start(*, delay_s: float = 0, argv: list[str] | None = None) -> Rig:
            rig = Rig(agent, base, delay_s=delay_s, argv=argv)
            rigs.callback(rig.close)
            return rig

        yield start


def test_client_waits_until_firecracker_listens(start: Start) -> None:
    rig = start(delay_s=0.3)
    assert rig.ask("echo\n", b"early") == b"early"


def test_client_that_does_not_wait_is_heard(start: Start) -> None:
    rig = start(delay_s=0.1)
    rig.connect("kill 9\n").close()
    assert rig.status() == -9


def test_half_close_is_kept(start: Start) -> None:
    rig = start()
    assert rig.ask("sink\n", b"x" * 3_000_001) == b"3000001"


def test_twenty_streams_at_once(start: Start) -> None:
    rig = start()

    def one(n: int) -> bool:
        data = struct.pack("<I", n) * 100_000
        with rig.connect("echo\n") as sock:
            sender = threading.Thread(target=send_all, args=(sock, data))
            sender.start()
            answer = rest_of(sock)
            sender.join()
        return answer == data

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(one, range(20)))


def test_stalled_stream_stalls_no_other(start: Start) -> None:
    rig = start()
    with rig.connect("source 64\n") as stalled, rig.connect("echo\n") as deaf:
        deaf.settimeout(0)  # an echo that is never read stalls the other direction
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.send(b"d" * 65536)
        assert rig.ask("source 100\n") == b"s" * 6_553_600
        assert rig.ask("sink\n", b"x" * 1_000_000) == b"1000000"
        assert rest_of(stalled) == b"s" * 4_194_304


def test_more_streams_than_there_is_room_for(start: Start) -> None:
    rig = start()
    with contextlib.ExitStack() as held:
        for _ in range(256):
            held.enter_context(rig.connect("watch\n")).recv(1)
        with contextlib.suppress(ConnectionError):
            assert rig.ask("echo\n", b"x") == b""
    eventually(lambda: not rig.bridge._streams)
    assert rig.ask("echo\n", b"x") == b"x"


def test_firecracker_sees_that_its_client_went(start: Start) -> None:
    rig = start()
    with rig.connect("watch\n") as sock:
        assert sock.recv(1) == b"w"
    eventually((rig.l1 / "gone").exists)


def test_firecracker_connects_to_us(start: Start) -> None:
    rig = start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(rig.host / "v.sock_1"))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        with rig.connect("dial event\n") as sock:
            with listener.accept()[0] as accepted:
                assert rest_of(accepted) == b"event"
                accepted.sendall(b"y" * 500_000)
            assert rest_of(sock) == b"heard " + b"y" * 500_000


def test_firecracker_connects_to_nobody(start: Start) -> None:
    assert start().ask("dial\n") == b"heard "


def test_signal_is_the_status_and_logs_are_complete(start: Start) -> None:
    rig = start()
    rig.ask(f"kill {signal.SIGTERM.value}\n")
    assert rig.status() == -signal.SIGTERM
    assert (rig.host / "console.log").read_text() == "starting\n"
    assert (rig.host / "fc.log").read_text() == "a line for the log\n"
    assert not (rig.host / "api.sock").exists()


def test_what_firecracker_left_reaches_a_slow_reader(start: Start) -> None:
    rig = start()
    with rig.connect("leave 7\n") as sock:
        assert rig.status() == 7
        _, left = (rig.host / "console.log").read_text().split("left")
        assert len(rest_of(sock)) == int(left)


def test_program_that_is_not_there(start: Start) -> None:
    rig = start(argv=["/nowhere/firecracker"])
    assert rig.status() == 127
    assert "/nowhere/firecracker: No such file" in (rig.host / "console.log").read_text()


def test_client_of_ended_firecracker_is_closed(start: Start) -> None:
    rig = start(argv=["/bin/sh", "-c", "sleep 0.2; exit 3"])
    with rig.connect() as sock:
        assert rest_of(sock) == b""
    assert rig.status() == 3


def test_large_console(start: Start) -> None:
    rig = start(argv=["/bin/sh", "-c", "head -c 5000000 /dev/zero"])
    assert rig.status() == 0
    assert (rig.host / "console.log").stat().st_size == 5_000_000


@pytest.mark.parametrize("wait_s", [0, 0.01, 0.05, 0.2])
def test_close_leaves_nothing(start: Start, wait_s: float) -> None:
    before = descriptors()
    rig = start()
    with rig.connect("source 100000\n") as sock:
        time.sleep(wait_s)
        rig.bridge.close()
        rig.bridge.close()
        with contextlib.suppress(ConnectionError):
            rest_of(sock)
    assert rig.agent.wait(DEADLINE_S) == 0  # the link's end is its end
    assert list(rig.host.glob("*.sock")) == []
    assert descriptors() == before


def test_bridge_that_was_never_started(base: Path) -> None:
    before = descriptors()
    bridge = Bridge(connect=[base / "api.sock"], listen=[], logs=[base / "console.log"])
    assert (base / "api.sock").exists()
    with pytest.raises(VmmError, match=r"api\.sock"):
        Bridge(connect=[base / "b.sock", base / "api.sock"], listen=[], logs=[])
    assert not (base / "b.sock").exists()
    bridge.close()
    assert not (base / "api.sock").exists()
    assert descriptors() == before


READY = encode_u32(Frame.READY, 0, 1)

HOSTILE_TO_BOTH = {
    "unknown type": struct.pack("<BII", 99, 0, 0),
    "huge": struct.pack("<BII", Frame.DATA, 1, FRAME_BYTES + 1),
    "stream that never was": encode(Frame.DATA, 77, b"x"),
    "stream zero": encode(Frame.CLOSE, 0),
    "short number": encode(Frame.OPEN, 2, b"x"),
}


@pytest.mark.parametrize(
    "frames",
    [
        *HOSTILE_TO_BOTH.values(),
        encode_u32(Frame.READY, 0, 2),
        encode_u32(Frame.OPEN, 1, 0),  # our number
        encode_u32(Frame.OPEN, 2, 1),  # no such socket
        encode_u32(Frame.OPEN, 2, 0) + encode_u32(Frame.OPEN, 2, 0),
        encode(Frame.LOG, 1, b"x"),
        encode(Frame.STOP),
        encode_u32(Frame.OPEN, 2, 0) + encode(Frame.DATA, 2, b""),
        encode_u32(Frame.OPEN, 2, 0) + encode_u32(Frame.WINDOW, 2, 1),
        encode_u32(Frame.OPEN, 2, 0) + encode(Frame.ACCEPTED, 2),
        encode_u32(Frame.OPEN, 2, 0) + 2 * encode(Frame.EOF, 2),
        encode_u32(Frame.OPEN, 2, 0) + encode(Frame.EOF, 2) + encode(Frame.DATA, 2, b"x"),
        encode_u32(Frame.OPEN, 2, 0) + encode(Frame.EOF, 2, b"x"),
        encode_u32(Frame.OPEN, 2, 0)
        + (2 + WINDOW_BYTES // FRAME_BYTES + 300_000 // FRAME_BYTES)
        * encode(Frame.DATA, 2, bytes(FRAME_BYTES)),
    ],
)
def test_bridge_ends_a_hostile_link(base: Path, frames: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(base / "v.sock_1"))
        listener.listen()
        ours, theirs = socket.socketpair()
        broken = threading.Event()
        bridge = Bridge(
            connect=[base / "api.sock"],
            listen=[base / "v.sock_1"],
            logs=[base / "console.log"],
            on_broken=broken.set,
        )
        bridge.start(ours)
        with theirs:
            with contextlib.suppress(ConnectionError):
                theirs.sendall(READY + frames)
            assert bridge.link_ended.wait(DEADLINE_S)
        assert broken.is_set()
        assert bridge.trouble
        assert bridge.status is None
        bridge.close()
        assert not (base / "api.sock").exists()


def test_bridge_tells_the_agents_trouble(base: Path) -> None:
    ours, theirs = socket.socketpair()
    bridge = Bridge(connect=[], listen=[], logs=[base / "console.log"])
    bridge.start(ours)
    theirs.sendall(READY + encode(Frame.TROUBLE, 0, b"no\nKVM \xff"))
    theirs.close()
    assert bridge.link_ended.wait(DEADLINE_S)
    assert bridge.trouble == r"no KVM \xff"
    bridge.close()


@pytest.mark.parametrize(
    "frames",
    [
        *HOSTILE_TO_BOTH.values(),
        encode_u32(Frame.OPEN, 1, 1),
        encode_u32(Frame.OPEN, 3, 0) + encode_u32(Frame.OPEN, 1, 0),
        encode_u32(Frame.OPEN, 1, 0) + encode(Frame.DATA, 1, b"x"),  # before ACCEPTED
        encode_u32(Frame.OPEN, 1, 0) + encode_u32(Frame.WINDOW, 1, 1),
        encode(Frame.EXIT),
        encode(Frame.STOP, 0, b"x"),
    ],
)
def test_agent_ends_a_hostile_link(agent: Path, base: Path, frames: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(DEADLINE_S)
        process = start_agent(agent, theirs, base, ["/bin/sleep", "60"])
        theirs.close()
        ours.sendall(frames)
        decoder, found = Decoder(), []
        with contextlib.suppress(ConnectionError):
            while data := ours.recv(65536):
                found += [kind for kind, _, _ in decoder.feed(data)]
        assert process.wait(DEADLINE_S) == 0
    assert found[0] is Frame.READY
    assert Frame.TROUBLE in found


def test_frames_are_cut_wherever_they_are_split() -> None:
    frames = [(Frame.DATA, 7, b"abc"), (Frame.EOF, 7, b""), (Frame.LOG, 0, bytes(FRAME_BYTES))]
    stream = b"".join(encode(*frame) for frame in frames)
    for step in (1, 2, 9, 10, 4096, len(stream)):
        decoder = Decoder()
        cuts = [stream[at : at + step] for at in range(0, len(stream), step)]
        assert [frame for cut in cuts for frame in decoder.feed(cut)] == frames
    with pytest.raises(Violation):
        list(Decoder().feed(struct.pack("<BII", Frame.DATA, 1, FRAME_BYTES + 1)))


def test_config_document(base: Path) -> None:
    config = AgentConfig(
        argv=["/fc", "--id", "a b\n"], connect=[Path("/r/api")], listen=[], logs=[], disks=[]
    )
    expected = b"fcbuild-agent 1\nargv 3\n/fc\nargv 4\n--id\nargv 4\na b\n\nconnect 6\n/r/api\n"
    assert config.encode() == expected + b"end 0\n\n"
    assert replace(config, tap="tap0").encode() == expected + b"tap 4\ntap0\nend 0\n\n"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"fcbuild-agent 2\nargv 1\na\nend 0\n\n",
        b"fcbuild-agent 1\nend 0\n\n",
        b"fcbuild-agent 1\nargv 1\na\n",
        b"fcbuild-agent 1\nargv 1\na\nend 0\n\nx",
        b"fcbuild-agent 1\nargv 01\na\nend 0\n\n",
        b"fcbuild-agent 1\nargv 9\na\nend 0\n\n",
        b"fcbuild-agent 1\nargv 99999999999999999999\na\nend 0\n\n",
        b"fcbuild-agent 1\nargv 1\n\0\nend 0\n\n",
        b"fcbuild-agent 1\nwhat 1\na\nend 0\n\n",
        b"fcbuild-agent 1\nargv 1\na\nlog 1\na\nend 0\n\n",
        b"fcbuild-agent 1\nargv 1\na\n" + b"log 2\n/a\n" * 65 + b"end 0\n\n",
        b"fcbuild-agent 1\nargv 1\na\ntap 0\n\nend 0\n\n",
        b"fcbuild-agent 1\nargv 1\na\ntap 16\n0123456789abcdef\nend 0\n\n",
        b"fcbuild-agent 1\nargv 1\na\n" + b"tap 1\na\n" * 2 + b"end 0\n\n",
    ],
)
def test_agent_refuses_a_config(agent: Path, base: Path, document: bytes) -> None:
    (base / "agent.conf").write_bytes(document)
    argv: list[str | Path] = [agent, "--link", "0", "--config", base / "agent.conf"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20)
    assert b"agent.conf: " in done.stderr
