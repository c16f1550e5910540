"""Locks on files and directories (flock): the kernel drops one with its process, however that ends.

A lock is on an inode. Whoever removes a file or directory that others lock does so holding it
exclusively, and whoever gets a lock looks whether its inode still has the name: so nobody works
under the lock of something that is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from fcbuild import interruption


@contextlib.contextmanager
def exclusive(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, made when it is not there. `waiting` is called, once, before a
    wait for another holder. Raises OSError."""
    told = False
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if not told:
                    waiting()
                told = True
                _wait(lock)
            if not names(path, lock):
                continue
            yield
            return
        finally:
            os.close(lock)


def share(path: Path) -> int | None:
    """Lock a file or directory against its removal; return the descriptor that holds the lock, or
    None for one that is not there. Raises OSError."""
    return _take(path, fcntl.LOCK_SH)


def claim(path: Path) -> int | None:
    """Lock a file or directory for oneself, to remove it; return the descriptor that holds the
    lock, or None for one that another holds or that is not there. Raises OSError."""
    return _take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def names(path: Path, descriptor: int) -> bool:
    """Return whether the path leads to what the descriptor is open on."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def work(directory: Path) -> bool:
    """Return whether locks keep two holders apart on the directory's file system. Raises OSError
    where there are none at all."""
    first, second = (os.open(directory, os.O_RDONLY | os.O_CLOEXEC) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        return not _flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(first)
        os.close(second)


def _take(path: Path, how: int) -> int | None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if _flock(lock, how) and names(path, lock):
            return lock
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _wait(descriptor: int) -> None:
    """Wait for an exclusive lock, in a thread of its own: outside the main thread, nothing can call
    one back from flock. Raises OSError, and KeyboardInterrupt on an interruption."""
    came: SimpleQueue[OSError | None] = SimpleQueue()

    def take() -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            came.put(error)
        else:
            came.put(None)

    threading.Thread(target=take, daemon=True).start()
    with interruption.ended(partial(came.put, None)):
        error = came.get()
    if error:
        raise error


def _flock(descriptor: int, how: int) -> bool:
    """Lock; return whether that was possible, which it always is for who waits."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True
