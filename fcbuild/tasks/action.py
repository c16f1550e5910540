"""The seam to doit's actions: our errors become its failures, and interruptions an orderly end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from doit.exceptions import TaskFailed

from fcbuild import interruption, progress
from fcbuild.errors import FcBuildError

_UNDOING_S = 10.0  # to remove what was made, once all programs have ended

Creator = TypeVar("Creator", bound=Callable[..., Any])


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Let whoever reads our output leave early, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be tried again, and fail again, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def act(function: Callable[..., Any], *args: Any) -> Any:
    """Run what a task does; turn an error that a user can meet into doit's failure, which is
    reported without a traceback and ends doit with status 1. Others are our bugs."""
    try:
        with interruption.task():
            return function(*args)
    except FcBuildError as error:
        return TaskFailed(f"error: {error}")


def named(name: str) -> Callable[[Creator], Creator]:
    """Make a function the creator of a task whose name cannot be a function's."""

    def mark(creator: Creator) -> Creator:
        vars(creator).update(basename=name, create_doit_tasks=creator)
        return creator

    return mark


def asked(current: Callable[[], bool]) -> bool:
    """Answer doit's "is it up to date?". An error here would end doit with a traceback, so the task
    runs instead and meets the same error where it can be reported."""
    try:
        return current()
    except FcBuildError:
        return False


def interruptible() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, in all threads, so that no VM or container stays
    behind, and answer all three in one line."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    unhandled = sys.excepthook

    def without_traceback(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        undone = _undone()
        if not issubclass(kind, KeyboardInterrupt):
            unhandled(kind, error, trace)
        elif undone:
            progress.say("interrupted: what was under way is undone, what was finished is kept")
        else:
            progress.say("interrupted: what was under way is not all undone: doit gc does the rest")

    sys.excepthook = without_traceback


def _undone() -> bool:
    """Have tasks in other threads (doit's -n) undo what they have under way; return whether they
    did in time, and before another Ctrl-C."""
    from fcbuild.run import GRACE_S

    try:
        return interruption.interrupt(GRACE_S + _UNDOING_S)
    except KeyboardInterrupt:
        return False


def python(*argv: str) -> Any:
    """Run a Python tool of .venv on the terminal."""
    from fcbuild.run import foreground

    status = foreground([sys.executable, *argv])
    return None if status == 0 else TaskFailed(f"{argv[1]} ended with status {status}")
