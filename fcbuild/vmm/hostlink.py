"""The frames between the bridge and the agent, and the agent's config (kvmhost/LINK.md)."""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcbuild.errors import VmmError
from fcbuild.records import document

VERSION = 1
FRAME_BYTES = 16_384  # payload; so that no stream keeps the link for long
WINDOW_BYTES = 262_144  # of credit at the start: what a stalled reader can make a side buffer
DRAIN_BYTES = 1_048_576  # beyond the window after DRAIN; a socket buffer is 208 KiB by default
MAX_STREAMS = 256

_CONFIG_BYTES = 262_144
_CONFIG_RECORDS = 4_096
_CONFIG_PATHS = 64

HEADER = struct.Struct("<BII")  # type, stream, length of the payload
_U32 = struct.Struct("<I")


class Violation(VmmError):
    """The peer broke the link's rules."""


class Frame(enum.IntEnum):
    READY = 1
    OPEN = 2
    ACCEPTED = 3
    REFUSED = 4
    DATA = 5
    WINDOW = 6
    EOF = 7
    CLOSE = 8
    LOG = 9
    DRAIN = 10
    EXIT = 11
    STOP = 12
    TROUBLE = 13


def encode(kind: Frame, stream: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, stream, len(payload)) + payload


def encode_u32(kind: Frame, stream: int, value: int) -> bytes:
    return encode(kind, stream, _U32.pack(value))


def u32(payload: bytes) -> int:
    """Return the payload's number. Raises Violation unless it is one."""
    if len(payload) != _U32.size:
        raise Violation(f"QEMU's guest sent {len(payload)} bytes for a number")
    return int(_U32.unpack(payload)[0])


def i32(payload: bytes) -> int:
    """Return the payload's signed number. Raises Violation unless it is one."""
    value = u32(payload)
    return value - (1 << 32) if value >> 31 else value


class Decoder:
    """Cut a byte stream into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Frame, int, bytes]]:
        """Yield (type, stream, payload) of each frame that is whole now. Raises Violation."""
        self._pending += data
        at = 0
        try:
            while len(self._pending) - at >= HEADER.size:
                kind, stream, length = HEADER.unpack_from(self._pending, at)
                if length > FRAME_BYTES:
                    raise Violation(f"QEMU's guest sent a frame of {length} bytes")
                end = at + HEADER.size + length
                if len(self._pending) < end:
                    return
                payload = bytes(memoryview(self._pending)[at + HEADER.size : end])
                at = end
                try:
                    frame = Frame(kind)
                except ValueError:
                    raise Violation(f"QEMU's guest sent a frame of type {kind}") from None
                yield frame, stream, payload
        finally:
            del self._pending[:at]


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What the agent does, in paths of its own file system."""

    argv: Sequence[str | Path]
    connect: Sequence[Path]
    listen: Sequence[Path]
    logs: Sequence[Path]
    disks: Sequence[Path]
    tap: str | None = None

    def encode(self) -> bytes:
        """Return the config document. Raises VmmError for what its format cannot hold."""
        for paths in (self.connect, self.listen, self.logs, self.disks):
            if len(paths) > _CONFIG_PATHS:
                raise VmmError(f"more than {_CONFIG_PATHS} paths of a kind: {len(paths)}")
        values = [
            *(("argv", value) for value in self.argv),
            *(("connect", path) for path in self.connect),
            *(("listen", path) for path in self.listen),
            *(("log", path) for path in self.logs),
            *(("disk", path) for path in self.disks),
            *((("tap", self.tap),) if self.tap else ()),
        ]
        records = [(key, os.fsencode(value)) for key, value in values]
        if bad := next((value for _, value in records if b"\0" in value), None):
            raise VmmError(f"a NUL in {bad!r}")
        config = document("fcbuild-agent 1", records)
        if len(config) > _CONFIG_BYTES or len(records) > _CONFIG_RECORDS:
            raise VmmError(f"Firecracker's arguments are too long: {len(config)} bytes")
        return config
