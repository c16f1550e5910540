"""Docker's containers: each runs one command in an image, and is gone afterwards.

Here is the way to Docker, too: the SDK's client, the docker command, and their errors as ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING

from fcbuild import interruption, progress
from fcbuild.build import owner
from fcbuild.errors import CommandFailed, ToolMissing
from fcbuild.run import TAIL_LINES, output, run

if TYPE_CHECKING:
    import docker
    import docker.types
    from docker.models.containers import Container

API_TIMEOUT_S = 60

# Ours, so that what an interrupted run could leave behind can be told from the user's own. A
# container's label says which process it is for (owner.py): a later run removes what a killed one
# left.
LABEL = "fcbuild"

_PRELOADED = "/preloaded.so"


class Containers:
    """What runs in containers; Engine in engine.py says what each method does.

    preload: a shared library for every program in those that have no network.
    """

    def __init__(self, *, preload: Path | None = None) -> None:
        self._preload = preload
        # One SDK client serves one thread at a time.
        self._local = threading.local()
        self._swept = False

    def sweep(self, *, dry_run: bool = False) -> int:
        from docker.errors import DockerException

        removed = 0
        with api_errors():
            for found in self.client.api.containers(all=True, filters={"label": LABEL}):
                label = (found.get("Labels") or {}).get(LABEL, "")
                if owner.gone(label, age_s=time.time() - found.get("Created", 0)):
                    # Two runs may well see the same one.
                    with contextlib.suppress(DockerException):
                        if not dry_run:
                            self.client.api.remove_container(found["Id"], force=True, v=True)
                        removed += 1
        return removed

    def run(
        self,
        tag: str,
        argv: Sequence[str],
        *,
        what: str,
        mounts: Mapping[Path, str],
        log: IO[bytes],
        log_path: Path,
        timeout_s: float,
        network: bool = False,
        env: Mapping[str, str] | None = None,
        tell: Callable[[str], str] = str,
    ) -> None:
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        made = self._container(tag, argv, mounts, network=network, env=env)
        with api_errors(), made as container:
            timer = threading.Timer(timeout_s, _kill, [container])
            timer.daemon = True
            try:
                container.start()
                timer.start()
                with interruption.ended(partial(_kill, container)):
                    for line in _lines(container.logs(stream=True, follow=True)):
                        log.write(line + b"\n")
                        text = line.decode("utf-8", "replace")
                        tail.append(text)
                        progress.detail(tell(text))
                status = int(container.wait(timeout=API_TIMEOUT_S)["StatusCode"])
            finally:
                # finished is set by cancel() too, so ask before.
                late = timer.finished.is_set()
                timer.cancel()
        if status:
            took = f" did not end within {timeout_s:.0f} s and" if late else ""
            raise CommandFailed(what + took, argv=argv, status=status, tail=tail, log=log_path)

    @contextlib.contextmanager
    def standby(
        self,
        tag: str,
        argv: Sequence[str],
        *,
        what: str,
        mounts: Mapping[Path, str],
        log: IO[bytes],
        log_path: Path,
        timeout_s: float,
    ) -> Iterator[Callable[[], None]]:
        # A line on its standard input lets it go; when we die, it sees the end of it and leaves.
        waiting = ["sh", "-c", 'read -r go && exec "$@"', "sh", *argv]
        word: SimpleQueue[bytes] = SimpleQueue()

        def listen(stdin: IO[bytes]) -> None:
            stdin.write(word.get())

        def work() -> None:
            with self._container(tag, waiting, mounts, waits=True) as container:
                run(
                    [self.cli, "start", "--attach", "--interactive", str(container.id)],
                    what=what,
                    stdin=listen,
                    log=log,
                    log_path=log_path,
                    timeout_s=timeout_s,
                )

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)

            def go() -> None:
                word.put(b"go\n")
                working.result()

            try:
                yield go
            finally:
                word.put(b"")  # unless it was let go, this is all that it gets

    @contextlib.contextmanager
    def _container(
        self,
        tag: str,
        argv: Sequence[str],
        mounts: Mapping[Path, str],
        *,
        network: bool = False,
        env: Mapping[str, str] | None = None,
        waits: bool = False,
    ) -> Iterator[Container]:
        """Create a container, and remove it. waits: whether it reads its standard input."""
        if not self._swept:
            self._swept = True
            self.sweep()
        if self._preload and not network:
            mounts = {**mounts, self._preload: f"{_PRELOADED}:ro"}
            env = {**(env or {}), "LD_PRELOAD": _PRELOADED}
        with api_errors():
            container = self.client.containers.create(
                tag,
                list(argv),
                user="0:0" if network or self._rootless else f"{os.getuid()}:{os.getgid()}",
                network_mode=None if network else "none",
                mounts=[_mount(path, place) for path, place in mounts.items()],
                environment=dict(env or {}),
                labels={LABEL: owner.ours()},
                init=True,
                stdin_open=waits,
            )
        try:
            yield container
        finally:
            with api_errors():
                container.remove(force=True)

    @property
    def client(self) -> docker.DockerClient:
        """This thread's client. Raises ToolMissing where no engine answers."""
        if not hasattr(self._local, "client"):
            import docker

            with api_errors():
                self._local.client = docker.from_env(timeout=API_TIMEOUT_S)
                self._local.client.ping()
        client: docker.DockerClient = self._local.client
        return client

    @cached_property
    def _rootless(self) -> bool:
        options = self.client.info().get("SecurityOptions") or []
        return any("rootless" in option for option in options)

    @cached_property
    def cli(self) -> str:
        """The first docker command whose `build` is BuildKit's.

        Newer commands have it in the buildx plugin, which may be missing; older ones have it built
        in. So the feature is probed, not the version.
        """
        found = [shutil.which("docker"), "/usr/bin/docker"]
        for candidate in dict.fromkeys(filter(None, found)):
            probe = [candidate, "build", "--help"]
            text = output(["env", "DOCKER_BUILDKIT=1", *probe], what="probing docker build")
            if text and "--output" in text:
                return candidate
        raise ToolMissing(
            "no docker command here can build with BuildKit",
            hint="apt-get install docker.io docker-buildx (Debian 13) or docker.io (Debian 12)",
        )


def _mount(path: Path, place: str) -> docker.types.Mount:
    # Not the short form, SOURCE:TARGET: a path may have a colon.
    import docker.types

    target, _, mode = place.rpartition(":")
    source = os.fspath(path.resolve())
    return docker.types.Mount(target, source, type="bind", read_only=mode == "ro")


def _kill(container: Container) -> None:
    from docker.errors import DockerException

    with contextlib.suppress(DockerException, OSError):
        container.kill()


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    pending = b""
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        yield from lines
    if pending:
        yield pending


@contextlib.contextmanager
def api_errors() -> Iterator[None]:
    """Turn the SDK's errors into ToolMissing."""
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise ToolMissing(f"the container engine refuses: {error.explanation or error}") from error
    except (DockerException, OSError) as error:
        raise ToolMissing(
            "no container engine answers",
            hint="start Docker (systemctl start docker), or name one in DOCKER_HOST; "
            "your user must be allowed to use it (group docker)",
        ) from error
