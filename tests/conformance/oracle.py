"""The container engine: how an image behaves there is how it has to behave in a microVM."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator

from tests.conformance.facts import Ran

CTRL_ALT_DEL = "ctrl-alt-del"  # a stop that comes by a microVM's keyboard; a container has none
READY = b"ready\n"  # what the probe says before it waits for a signal
DEADLINE_S = 120.0


def run(tag: str, *, hostname: str, ask: str, grace_s: int, init: bool) -> Ran:
    """Run an image to its end.

    ask: "" for a program that ends by itself; "stop", CTRL_ALT_DEL or the number of a signal for
    what it is told once it says "ready". grace_s: how long a stop waits before SIGKILL.
    init: with the engine's own small init as process 1.
    """
    name = f"fcbuild-conformance-{uuid.uuid4().hex}"
    # Without a network, as a microVM has none that nobody gave it.
    options = ["--rm", "--name", name, "--hostname", hostname, "--network", "none"]
    if init:
        options.append("--init")
    began = time.time()
    container = subprocess.Popen(
        ["docker", "run", *options, tag],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with _removed(name, container):
        assert container.stdout
        said = b""
        if ask:
            while not said.endswith(READY):
                line = container.stdout.readline()
                assert line, f"{tag}: the program ended before it was ready: {said!r}"
                said += line
        if ask in ("stop", CTRL_ALT_DEL):
            _docker("stop", "--time", str(grace_s), name)
        elif ask:
            _docker("kill", "--signal", ask, name)
        output, errors = container.communicate()
    return Ran(
        output=said + output,
        errors=errors,
        status=container.returncode,
        began=began,
        ended=time.time(),
    )


@contextlib.contextmanager
def _removed(name: str, client: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave nothing behind, and nobody waiting for ever."""
    watchdog = threading.Timer(DEADLINE_S, _remove, [name])
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        if client.poll() is None:
            _remove(name)
            client.kill()
        client.communicate()


def _remove(name: str) -> None:
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


def _docker(*args: str) -> None:
    subprocess.run(["docker", *args], check=True, capture_output=True, timeout=DEADLINE_S)
