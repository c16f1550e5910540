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

from fcbuild import progress
from fcbuild.errors import FcBuildError

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
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, so that no VM or container stays behind, and
    answer all three in one line."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    unhandled = sys.excepthook

    def without_traceback(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            progress.say("interrupted: what was under way is undone, what was finished is kept")
        else:
            unhandled(kind, error, trace)

    sys.excepthook = without_traceback


def python(*argv: str) -> Any:
    """Run a Python tool of .venv on the terminal."""
    from fcbuild.run import foreground

    status = foreground([sys.executable, *argv])
    return None if status == 0 else TaskFailed(f"{argv[1]} ended with status {status}")
