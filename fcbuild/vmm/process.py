"""Start the long-lived child processes of a microVM (Firecracker, or the QEMU that hosts it)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO


def spawn(
    argv: Sequence[str | Path], *, stdout: IO[bytes], stderr: IO[bytes] | int = subprocess.STDOUT
) -> subprocess.Popen[bytes]:
    """Start argv in a session of its own, with no standard input.

    The child is killed by the kernel when the spawning *thread* ends (PR_SET_PDEATHSIG, set by
    setpriv so that no Python code runs between fork and exec), so spawn from the main thread.
    """
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        close_fds=True,
    )


def end(process: subprocess.Popen[bytes], *, grace_s: float = 2.0) -> int:
    """Terminate the process, kill it after the grace period, reap it; return its status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
