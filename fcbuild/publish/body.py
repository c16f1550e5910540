"""What is sent to a registry: a file's bytes, in pieces, each attempt from the beginning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from fcbuild import interruption, progress

CHUNK = 1 << 20


class Body(NamedTuple):
    """A file to send. size: in bytes."""

    path: Path
    size: int


class Sending:
    """A file on its way: its length, its pieces, and an end to waiting for a slow registry.

    deadline: of the monotonic clock; a piece asked for later raises TimeoutError.
    """

    def __init__(self, file: IO[bytes], size: int, deadline: float) -> None:
        self._file = file
        self._size = size
        self._deadline = deadline
        self._meter = progress.Meter(size)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def read(self, _: int = -1) -> bytes:
        """Return the next piece, which is larger than a client asks for: it has fewer to send."""
        if time.monotonic() > self._deadline:
            raise TimeoutError("the registry takes it too slowly")
        interruption.heed()
        piece = self._file.read(CHUNK)
        self._meter.add(len(piece))
        return piece
