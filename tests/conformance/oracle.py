"""The container engine: how an image behaves there is how it has to behave in a microVM."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator

from tests.conformance.facts import Health, Ran

CTRL_ALT_DEL = "ctrl-alt-del"  # a stop that comes by a microVM's keyboard; a container has none
READY = b"ready\n"  # what the probe says before it waits for a signal
DEADLINE_S = 120.0


def run(tag: str, *, hostname: str, ask: str, verdicts: int, grace_s: int, init: bool) -> Ran:
    """Run an image to its end.

    ask: "" for a program that ends by itself; "stop", CTRL_ALT_DEL or the number of a signal for
    what it is told once it says "ready". verdicts: of the health check, to wait for before that.
    grace_s: how long a stop waits before SIGKILL. init: with the engine's own small init as
    process 1.
    """
    name = f"fcbuild-conformance-{uuid.uuid4().hex}"
    # Without a network, as a microVM has none that nobody gave it.
    options = ["--rm", "--name", name, "--hostname", hostname, "--network", "none"]
    if init:
        options.append("--init")
    began = time.time()
    with _spawned(name, "run", *options, tag) as container:
        said = b""
        if ask:
            while not said.endswith(READY):
                said += _line(container)
        health = _health(name, verdicts) if verdicts else None
        if ask in ("stop", CTRL_ALT_DEL):
            _docker("stop", "--time", str(grace_s), name)
        elif ask:
            _docker("kill", "--signal", ask, name)
        output, errors = container.communicate()
    return Ran(
        output=said + output,
        errors=errors,
        status=container.returncode,
        health=health,
        began=began,
        ended=time.time(),
    )


def _health(name: str, count: int) -> Health:
    """Wait for the verdicts on a container that has just started."""
    filters = (f"container={name}", "event=health_status")
    options = [word for each in filters for word in ("--filter", each)]
    verdicts: list[str] = []
    with _spawned(name, "events", "--since=1m", "--format={{.Status}}", *options) as events:
        while len(verdicts) < count:
            # "health_status: healthy"
            verdicts.append(_line(events).decode().split()[-1])
        events.terminate()
    state = json.loads(_docker("inspect", "--format={{json .State.Health}}", name))
    last = state["Log"][-1]
    return Health(verdicts=tuple(verdicts), code=last["ExitCode"], output=last["Output"])


def _line(client: subprocess.Popen[bytes]) -> bytes:
    assert client.stdout and client.stderr
    line = client.stdout.readline()
    assert line, f"{client.args!r} ended too early: {client.stderr.read()!r}"
    return line


@contextlib.contextmanager
def _spawned(name: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a docker command that is about a container; leave neither of them behind, and nobody
    waiting for ever."""
    client = subprocess.Popen(
        ["docker", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def give_up() -> None:
        _docker("rm", "--force", name)
        client.kill()

    watchdog = threading.Timer(DEADLINE_S, give_up)
    watchdog.start()
    try:
        yield client
    finally:
        watchdog.cancel()
        if client.poll() is None and args[0] == "run":
            give_up()
        client.communicate()


def _docker(*args: str) -> bytes:
    return subprocess.run(
        ["docker", *args], check=True, capture_output=True, timeout=DEADLINE_S
    ).stdout
