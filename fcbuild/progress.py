"""Say what is going on: one line when a step starts or ends, and on a terminal a live line.

Everything goes to standard error, so that standard output stays for results. Piped, NO_COLOR or
not: no live line, no colours, only the lines.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

_LIVE_EVERY_S = 0.1  # a live line is drawn at most this often
_LARGE = 1 << 20  # bytes

_lock = threading.Lock()
_steps: dict[int, _Step] = {}
_drawn = False


class _Step:
    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self.last_drawn = 0.0


def colour(text: str, code: str) -> str:
    """Return the text in a colour (an SGR code) where standard error shows colours."""
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def say(text: str) -> None:
    """Print one line."""
    with _lock:
        _clear()
        print(text, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step that takes long, and how long it took once it is done."""
    say(f"{title} ...")
    current = _Step(title)
    outer = _steps.get(threading.get_ident())
    _steps[threading.get_ident()] = current
    try:
        yield
    finally:
        del _steps[threading.get_ident()]
        if outer:
            _steps[threading.get_ident()] = outer
        with _lock:
            _clear()
    say(f"{title}: {duration(time.monotonic() - current.started)}")


def transfer(title: str, size: int) -> AbstractContextManager[None]:
    """Announce a transfer of so many bytes, as a step, where they are enough to be seen."""
    return step(f"{title} {size >> 20} MiB") if size >= _LARGE else nullcontext()


def detail(text: str) -> None:
    """Show what the running step is at (its tool's last line); on a terminal only."""
    current = _steps.get(threading.get_ident())
    now = time.monotonic()
    if current is None or now - current.last_drawn < _LIVE_EVERY_S or not sys.stderr.isatty():
        return
    current.last_drawn = now
    width = shutil.get_terminal_size().columns
    elapsed = duration(now - current.started)
    # A tool's output may hold anything; on the live line only what prints.
    shown = "".join(c if c.isprintable() else " " for c in text)
    line = f"  {current.title} {elapsed}: {shown.strip()}"[: width - 1]
    global _drawn
    with _lock:
        _clear()
        sys.stderr.write(line)
        sys.stderr.flush()
        _drawn = True


class Meter:
    """How far a transfer is. total: its bytes. On a terminal, a bar with rate and time left."""

    _CELLS = 20

    def __init__(self, total: int, *, done: int = 0) -> None:
        self._total = max(total, 1)
        self._before = self._done = done
        self._started = time.monotonic()

    def add(self, count: int) -> None:
        """Note that so many more bytes are through."""
        self._done += count
        detail(self.text(time.monotonic()))

    def text(self, now: float) -> str:
        """Return the bar at a time of the monotonic clock."""
        part = min(self._done / self._total, 1.0)
        full = round(part * self._CELLS)
        bar = "#" * full + "." * (self._CELLS - full)
        line = f"[{bar}] {self._done >> 20} of {self._total >> 20} MiB ({part:.0%})"
        elapsed = now - self._started
        if elapsed < 1.0 or self._done == self._before:
            return line  # a rate of so little would be a guess
        rate = (self._done - self._before) / elapsed
        left = duration((self._total - self._done) / rate)
        return f"{line}, {rate / (1 << 20):.1f} MiB/s, {left} left"


def duration(seconds: float) -> str:
    """Return a time as people read it: 0.4 s, 12 s, 3 min 20 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _clear() -> None:
    global _drawn
    if _drawn:
        sys.stderr.write("\r\x1b[K")
        _drawn = False
