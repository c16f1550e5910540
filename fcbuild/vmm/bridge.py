"""Carry sockets, logs and an exit status between this host and QEMU's guest (LINK.md), here for
Firecracker in an emulated KVM host; where QEMU is itself the VMM, PID 1 is the agent.

    client ---- run_dir/api.sock --+                      +-- api.sock --- Firecracker
    client ---- run_dir/v.sock ----+   bridge == agent ---+-- v.sock ----- (the same paths, but in
    us <------- run_dir/v.sock_N --+                      +-- v.sock_N <-- the emulated host)
    console.log, firecracker.log <-+

One daemon thread with one epoll does it all. It owns every descriptor after start(); others
only set its stop event and read what it published: ready, status, trouble, link_ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from fcbuild.errors import VmmError
from fcbuild.vmm.hostlink import (
    DRAIN_BYTES,
    FRAME_BYTES,
    MAX_STREAMS,
    VERSION,
    WINDOW_BYTES,
    Decoder,
    Frame,
    Violation,
    encode,
    encode_u32,
    i32,
    u32,
)

# Data waits in the clients' sockets, not here: nothing is read from them while this much waits
# for the link, so that one bulk stream adds little delay to the others.
_OUT_BUSY = 131_072
# Answers alone cannot make it this long, unless the agent floods us and reads nothing.
_OUT_LIMIT = 4_194_304
_LINK_READ = 262_144
_BACKLOG = 128  # as Firecracker's own
_HUNG_UP = select.EPOLLHUP | select.EPOLLERR


class _State(Enum):
    OPENING = auto()  # we sent OPEN
    JOINED = auto()


@dataclass(eq=False)
class _Stream:
    id: int
    sock: socket.socket
    state: _State
    credit: int = WINDOW_BYTES  # bytes that the agent still takes
    taken: int = 0  # bytes delivered for which no credit was given back yet
    inbox: bytearray = field(default_factory=bytearray)  # bytes for sock
    sent_eof: bool = False
    got_eof: bool = False
    got_close: bool = False
    deaf: bool = False  # sock takes nothing more

    def is_done(self) -> bool:
        """Both directions are done, or the agent takes no more and all it sent is delivered."""
        return not self.inbox and (self.got_close or (self.got_eof and self.sent_eof))


class Bridge:
    """The host side of one emulated KVM host.

    connect: sockets to listen on here, for Firecracker there. listen: sockets to connect to here.
    logs: files to append to here; the first is the console. on_broken is called (in the bridge's
    thread) when the agent cannot be talked to any more though its host may still run.

    ready is set when the agent answers, link_ended when nothing follows from it. status is
    Firecracker's exit status once it ended; trouble says what went wrong below Firecracker.
    """

    def __init__(
        self,
        *,
        connect: Sequence[Path],
        listen: Sequence[Path],
        logs: Sequence[Path],
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        self.ready = threading.Event()
        self.link_ended = threading.Event()
        self.status: int | None = None
        self.trouble: str | None = None
        self._targets = tuple(listen)
        self._on_broken = on_broken
        self._paths: list[Path] = []
        self._thread: threading.Thread | None = None
        self._resources = contextlib.ExitStack()
        self._link: socket.socket | None = None
        self._out = bytearray()
        self._decoder = Decoder()
        self._draining = False
        self._streams: dict[int, _Stream] = {}
        self._by_fd: dict[int, _Stream] = {}
        self._watched: dict[int, int] = {}
        self._last_ours = -1
        self._last_theirs = 0
        with contextlib.ExitStack() as undo:
            undo.push(self._resources)
            undo.callback(self._unlink)
            self._epoll = self._resources.enter_context(select.epoll())
            self._stop_reader, self._stop_writer = socket.socketpair()
            self._resources.enter_context(self._stop_reader)
            undo.enter_context(self._stop_writer)
            self._logs = [(path, self._open_log(path)) for path in logs]
            self._listeners = [self._listen(path) for path in connect]
            undo.pop_all()

    def _open_log(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        self._resources.callback(os.close, fd)
        return fd

    def _listen(self, path: Path) -> socket.socket:
        listener = self._resources.enter_context(socket.socket(socket.AF_UNIX))
        listener.settimeout(0)
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            raise VmmError(f"cannot listen on {path}: {error.strerror or error}") from error
        self._paths.append(path)
        listener.listen(_BACKLOG)
        return listener

    def start(self, link: socket.socket) -> None:
        """Begin to carry, over the connected link, which is the bridge's from now on."""
        link.settimeout(0)
        self._link = self._resources.enter_context(link)
        self._thread = threading.Thread(target=self._main, name="kvm-host-bridge", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections at once, remove the sockets, end the thread; safe to call twice."""
        self._stop_writer.close()
        if self._thread is not None:
            self._thread.join()
        else:
            self._release()

    # What follows runs in the bridge's thread.

    def _main(self) -> None:
        try:
            self._carry()
        except VmmError as error:
            self.trouble = error.message
            self._on_broken()
        except BaseException as error:
            self.trouble = f"the bridge to QEMU's guest failed: {error!r}"
            self._on_broken()
            raise
        finally:
            self._release()
            self.link_ended.set()

    def _release(self) -> None:
        for stream in self._streams.values():
            stream.sock.close()
        self._streams.clear()
        self._resources.close()
        self._unlink()

    def _unlink(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    def _carry(self) -> None:
        """Run until stop is asked for, or the link has ended and all it brought is delivered."""
        stop = self._stop_reader.fileno()
        listeners = {listener.fileno(): index for index, listener in enumerate(self._listeners)}
        for fd in (stop, *listeners):
            self._watch(fd, select.EPOLLIN)
        while self._link is not None or self._streams:
            self._watch_all()
            found = dict(self._epoll.poll())
            if stop in found:
                return
            # Streams first: what follows may close one and give its descriptor away.
            for stream in [self._by_fd[fd] for fd in found if fd in self._by_fd]:
                self._run_stream(stream, found[stream.sock.fileno()])
            if self._link is not None and (events := found.get(self._link.fileno())):
                self._run_link(self._link, events)
            for fd in listeners:
                if self._link is None:
                    self._watch(fd, None)
                elif fd in found:
                    self._accept(self._listeners[listeners[fd]], listeners[fd])

    def _watch(self, fd: int, mask: int | None) -> None:
        """Wait for mask on fd (0: for a hang-up only), or for nothing."""
        before = self._watched.get(fd)
        if before == mask:
            return
        if mask is None:
            del self._watched[fd]
            self._epoll.unregister(fd)
            return
        self._watched[fd] = mask
        if before is None:
            self._epoll.register(fd, mask)
        else:
            self._epoll.modify(fd, mask)

    def _watch_all(self) -> None:
        if self._link is not None:
            # Before READY nobody reads at the other end.
            flush = self._out and self.ready.is_set()
            mask = select.EPOLLIN | (select.EPOLLOUT if flush else 0)
            self._watch(self._link.fileno(), mask)
        for stream in self._streams.values():
            self._watch(stream.sock.fileno(), self._mask(stream))

    def _mask(self, stream: _Stream) -> int | None:
        # A hang-up is always reported: look only when it can be acted on.
        mask = 0
        if self._may_read(stream):
            mask |= select.EPOLLIN
        if stream.inbox:
            mask |= select.EPOLLOUT
        # (A client that went before ACCEPTED may have left data, which is still carried.)
        return mask if mask or stream.sent_eof else None

    def _may_read(self, stream: _Stream) -> bool:
        return (
            stream.state is _State.JOINED
            and not stream.sent_eof
            and not stream.got_close
            and stream.credit > 0
            and len(self._out) < _OUT_BUSY
            and self._link is not None
        )

    def _send(self, frame: bytes) -> None:
        if self._link is None:
            return
        self._out += frame
        if len(self._out) > _OUT_LIMIT:
            raise Violation("QEMU's guest takes no answers")

    # The local side.

    def _accept(self, listener: socket.socket, index: int) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        sock.settimeout(0)
        if len(self._streams) >= MAX_STREAMS:
            sock.close()
            return
        self._last_ours += 2
        self._join(_Stream(self._last_ours, sock, _State.OPENING))
        self._send(encode_u32(Frame.OPEN, self._last_ours, index))

    def _join(self, stream: _Stream) -> None:
        self._streams[stream.id] = stream
        self._by_fd[stream.sock.fileno()] = stream

    def _drop(self, stream: _Stream, say: Frame | None = None) -> None:
        if say is not None:
            self._send(encode(say, stream.id))
        fd = stream.sock.fileno()
        self._watch(fd, None)
        del self._by_fd[fd]
        del self._streams[stream.id]
        stream.sock.close()

    def _run_stream(self, stream: _Stream, events: int) -> None:
        hung_up = bool(events & _HUNG_UP)
        if events & select.EPOLLOUT or (hung_up and stream.inbox):
            self._deliver(stream)
        if self._may_read(stream):
            if events & select.EPOLLIN or hung_up:
                self._read(stream, hung_up=hung_up)
        elif hung_up and stream.sent_eof:
            self._drop(stream, Frame.CLOSE)
        self._settle(stream)

    def _settle(self, stream: _Stream) -> None:
        if stream.id in self._streams and stream.is_done():
            self._drop(stream)

    def _read(self, stream: _Stream, *, hung_up: bool) -> None:
        try:
            data = stream.sock.recv(min(FRAME_BYTES, stream.credit))
        except BlockingIOError:
            return
        except OSError:
            self._drop(stream, Frame.CLOSE)
            return
        if data:
            stream.credit -= len(data)
            self._send(encode(Frame.DATA, stream.id, data))
        elif hung_up:
            self._drop(stream, Frame.CLOSE)
        else:
            stream.sent_eof = True
            self._send(encode(Frame.EOF, stream.id))

    def _deliver(self, stream: _Stream) -> None:
        """Give the local peer what it takes now, and the agent credit for that."""
        if stream.inbox and not stream.deaf:
            try:
                sent = stream.sock.send(stream.inbox)
            except BlockingIOError:
                sent = 0
            except OSError:
                stream.deaf = True
            else:
                del stream.inbox[:sent]
                stream.taken += sent
        if stream.deaf:
            # Nobody will read it; credit keeps the sender going until it learns that.
            stream.taken += len(stream.inbox)
            stream.inbox.clear()
        if stream.taken >= WINDOW_BYTES // 2 and not (stream.got_eof or stream.got_close):
            if not self._draining:
                self._send(encode_u32(Frame.WINDOW, stream.id, stream.taken))
            stream.taken = 0
        if not stream.inbox and stream.got_eof and not stream.deaf:
            with contextlib.suppress(OSError):
                stream.sock.shutdown(socket.SHUT_WR)

    # The side of the link.

    def _run_link(self, link: socket.socket, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                sent = link.send(self._out)
                del self._out[:sent]
            if events & (select.EPOLLIN | _HUNG_UP):
                data = link.recv(_LINK_READ)
                if not data:
                    self._end_link(link)
                for frame in self._decoder.feed(data):
                    self._on_frame(*frame)
        except BlockingIOError:
            pass
        except OSError:  # reset: QEMU was killed
            self._end_link(link)

    def _end_link(self, link: socket.socket) -> None:
        self._watch(link.fileno(), None)
        link.close()
        self._link = None
        self._unlink()
        for stream in list(self._streams.values()):
            stream.got_close = True
            self._settle(stream)
        self.link_ended.set()

    def _on_frame(self, kind: Frame, stream_id: int, payload: bytes) -> None:
        if kind is Frame.LOG:
            self._on_log(stream_id, payload)
        elif kind is Frame.OPEN:
            self._on_open(stream_id, u32(payload))
        elif Frame.ACCEPTED <= kind <= Frame.CLOSE:
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._on_stream(stream, kind, payload)
            elif not self._was_opened(stream_id):
                raise Violation(f"QEMU's guest named a stream that never was: {stream_id}")
        elif kind is Frame.READY:
            if (version := u32(payload)) != VERSION:
                raise Violation(f"QEMU's guest speaks version {version} of the link, not {VERSION}")
            self.ready.set()
        elif kind is Frame.DRAIN:
            self._draining = True
        elif kind is Frame.EXIT:
            self.status = i32(payload)
            self._send(encode(Frame.STOP))
        elif kind is Frame.TROUBLE:
            self.trouble = " ".join(payload.decode(errors="backslashreplace").split())
        else:
            raise Violation(f"QEMU's guest sent a {kind.name} frame")

    def _was_opened(self, stream_id: int) -> bool:
        # A frame for a stream that is gone crossed our CLOSE.
        last = self._last_ours if stream_id % 2 else self._last_theirs
        return 0 < stream_id <= last

    def _on_log(self, index: int, payload: bytes) -> None:
        if index >= len(self._logs):
            raise Violation(f"QEMU's guest named a log that is not: {index}")
        path, fd = self._logs[index]
        data = memoryview(payload)
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError as error:
            raise VmmError(f"cannot write {path}: {error.strerror}") from error

    def _on_open(self, stream_id: int, index: int) -> None:
        if stream_id % 2 or stream_id <= self._last_theirs or index >= len(self._targets):
            raise Violation(f"QEMU's guest opened stream {stream_id} to socket {index}")
        self._last_theirs = stream_id
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(0)
        try:
            if len(self._streams) >= MAX_STREAMS:
                raise BlockingIOError
            sock.connect(os.fspath(self._targets[index]))
        except OSError:  # nobody listens, or the backlog is full: as Firecracker would find it
            sock.close()
            self._send(encode(Frame.REFUSED, stream_id))
            return
        self._join(_Stream(stream_id, sock, _State.JOINED))
        self._send(encode(Frame.ACCEPTED, stream_id))

    def _on_stream(self, stream: _Stream, kind: Frame, payload: bytes) -> None:
        if kind is Frame.DATA:
            self._on_data(stream, payload)
        elif kind is Frame.WINDOW:
            more = u32(payload)
            if not 0 < more <= WINDOW_BYTES - stream.credit:
                raise Violation(f"QEMU's guest gave {more} bytes of credit")
            stream.credit += more
        elif payload:
            raise Violation(f"QEMU's guest sent a {kind.name} frame with a payload")
        elif kind is Frame.CLOSE:
            stream.got_close = True
            self._deliver(stream)
        elif kind is Frame.EOF and stream.state is _State.JOINED and not stream.got_eof:
            stream.got_eof = True
            self._deliver(stream)
        elif kind is Frame.ACCEPTED and stream.state is _State.OPENING:
            stream.state = _State.JOINED
        elif kind is Frame.REFUSED and stream.state is _State.OPENING:
            self._drop(stream)
        else:
            raise Violation(f"QEMU's guest sent {kind.name} out of turn")
        self._settle(stream)

    def _on_data(self, stream: _Stream, payload: bytes) -> None:
        room = WINDOW_BYTES + (DRAIN_BYTES if self._draining else 0)
        if stream.state is not _State.JOINED or stream.got_eof or stream.got_close or not payload:
            raise Violation("QEMU's guest sent DATA out of turn")
        if stream.taken + len(stream.inbox) + len(payload) > room:
            raise Violation("QEMU's guest sent DATA beyond its credit")
        stream.inbox += payload
        self._deliver(stream)
