"""Ctrl-C for tasks in threads (doit's -n).

The signal reaches the main thread alone. So what the other threads wait for is ended, or they are
asked in passing, and each of them gets a KeyboardInterrupt of its own, once: it undoes what it has
under way as if it had been alone. The main thread waits for that before the process ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

_changed = threading.Condition()
_asked = False
_running = 0  # tasks
_ends: list[Callable[[], object]] = []
_thread = threading.local()


@contextlib.contextmanager
def task() -> Iterator[None]:
    """Within is what a task does, which an interruption waits for. Raises KeyboardInterrupt after
    one."""
    global _running
    heed()
    with _changed:
        _running += 1
    try:
        yield
    finally:
        with _changed:
            _running -= 1
            _changed.notify_all()


def heed() -> None:
    """Raise KeyboardInterrupt if there was an interruption that this thread was not told of."""
    if _asked and not getattr(_thread, "told", False):
        _thread.told = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def ended(end: Callable[[], object]) -> Iterator[None]:
    """Within, wait for something that `end` brings to its end, from another thread.

    Raises KeyboardInterrupt on an interruption, whatever the wait came to by its end.
    """
    heed()
    with _changed:
        _ends.append(end)
    try:
        yield
    finally:
        with _changed:
            _ends.remove(end)
        heed()


def interrupt(patience_s: float) -> bool:
    """Have all other threads unwind; return whether all tasks have, within that many seconds."""
    global _asked
    with _changed:
        _asked = True
        # Under the lock: nothing is ended that is not waited for any more.
        for end in _ends:
            end()
        return _changed.wait_for(lambda: not _running, patience_s)
