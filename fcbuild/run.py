"""Run host tools: the one place that starts them (a microVM's own processes: vmm/process.py)."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from fcbuild import interruption, progress
from fcbuild.errors import CommandFailed, ToolMissing

TAIL_LINES = 20  # of a failed tool's output, in the error
GRACE_S = 20.0  # between SIGTERM and SIGKILL: mmdebstrap removes what it unpacked

# Variables that change what a tool prints, or in which language, are not passed on.
_DROPPED = ("LANG", "LANGUAGE", "LC_", "GREP_", "MAKEFLAGS", "SOURCE_DATE_EPOCH")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a host tool: ours, in the C locale, plus `extra`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
    return {**kept, "LC_ALL": "C.UTF-8", **(extra or {})}


def need(tool: str, package: str) -> Path:
    """Return the path of a host tool. Raises ToolMissing naming the package that has it."""
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
    if found is None:
        raise ToolMissing(f"{tool} is not installed", hint=f"apt-get install {package}")
    return Path(found)


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    log: IO[bytes] | None = None,
    log_path: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | None = None,
    stdin: Callable[[IO[bytes]], None] | None = None,
    timeout_s: float,
    hint: str | None = None,
) -> None:
    """Run a tool to its end; what it prints goes to the log and its last lines to the error.

    stdout, when given, takes the tool's standard output (a payload) in place of the log.
    stdin is called with the tool's standard input to fill it. The tool is ended when the time is
    up or when we are interrupted. Raises CommandFailed or ToolMissing.
    """
    command = list(map(str, argv))
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    if shutil.which(command[0]) is None:  # setpriv would say it as its own failure
        raise ToolMissing(f"{command[0]} is not installed", hint=hint)
    try:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE if stdout else subprocess.STDOUT,
            env=environment(env),
            # A group of its own: a Ctrl-C on the terminal reaches us, and we end all of it.
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolMissing(f"{error.filename} is not installed", hint=hint) from error
    deadline = time.monotonic() + timeout_s
    try:
        with interruption.ended(partial(_terminate, process)):
            if stdin:
                _feed(process, stdin, deadline)
            output = process.stderr if stdout else process.stdout
            assert output is not None
            for line in _lines(output, deadline):
                if log:
                    log.write(line + b"\n")
                text = line.decode("utf-8", "replace").rstrip()
                tail.append(text)
                progress.detail(text)
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(
            f"{what} did not end within {timeout_s:.0f} s and",
            argv=command,
            status=-15,
            tail=tail,
            log=log_path,
            hint=hint,
        ) from error
    finally:
        _end(process)
    if process.returncode:
        raise CommandFailed(
            what, argv=command, status=process.returncode, tail=tail, log=log_path, hint=hint
        )


@contextlib.contextmanager
def conversation(
    argv: Sequence[str | Path],
    *,
    what: str,
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Start a program to talk with: yields its standard input and output; its errors go to the log.

    At the end its input is closed, which is its sign to leave. It is killed when the time is up:
    its output ends then, as when it dies of itself. Raises ToolMissing.
    """
    command = list(map(str, argv))
    try:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(env),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolMissing(f"{error.filename} is not installed, for {what}") from error
    assert process.stdin and process.stdout
    timer = threading.Timer(timeout_s, _signal_group, [process, signal.SIGKILL])
    timer.start()
    try:
        with interruption.ended(partial(_terminate, process)):
            yield process.stdin, process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    finally:
        timer.cancel()
        _end(process)


def foreground(argv: Sequence[str | Path]) -> int:
    """Run a command on our own terminal, for as long as it takes; return its status."""
    return subprocess.run(list(map(str, argv)), check=False).returncode


def output(argv: Sequence[str | Path], *, what: str, timeout_s: float = 10.0) -> str | None:
    """Return what a probing command prints, or None when it fails or is not there."""
    try:
        done = subprocess.run(
            list(map(str, argv)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _feed(
    process: subprocess.Popen[bytes], fill: Callable[[IO[bytes]], None], deadline: float
) -> None:
    # The tools we feed read all their input before they print much (a context's tar), so filling
    # first and reading afterwards cannot block both sides.
    assert process.stdin is not None
    # A tool that does not read blocks us in a write, which only its end ends.
    timer = threading.Timer(deadline - time.monotonic(), _signal_group, [process, signal.SIGKILL])
    timer.start()
    try:
        fill(process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended early; its own message says why
    except BaseException:
        # The end of its input would tell it that it has all there is.
        _signal_group(process, signal.SIGKILL)
        raise
    finally:
        timer.cancel()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    if time.monotonic() >= deadline:
        raise TimeoutError


def _lines(stream: IO[bytes], deadline: float) -> Iterator[bytes]:
    """Yield the lines of a pipe until its end. Raises TimeoutError when the deadline passes."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        # The clock is asked too: a pipe that always holds something never lets select time out.
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            yield from lines
        else:
            raise TimeoutError
    if pending:
        yield pending


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Have the process end, without waiting for it: somebody else does."""
    _signal_group(process, signal.SIGTERM)
    late = threading.Timer(GRACE_S, _signal_group, [process, signal.SIGKILL])
    late.daemon = True
    late.start()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()
