"""The container engine: the only module that talks to Docker.

The docker SDK carries the API (images, containers); builds go through the docker command, because
BuildKit, which the SDK does not speak, is what can stream a root filesystem without a container.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, Protocol

from fcbuild import progress
from fcbuild.build import owner
from fcbuild.dockerfile import LOCAL
from fcbuild.errors import CommandFailed, SourceError, ToolMissing
from fcbuild.lock import DIGEST
from fcbuild.run import TAIL_LINES, output, run

if TYPE_CHECKING:
    import docker
    import docker.types
    from docker.models.containers import Container

API_TIMEOUT_S = 60
BUILD_TIMEOUT_S = 3600.0
EXPORT_TIMEOUT_S = 900.0

# Ours, so that what an interrupted run could leave behind can be told from the user's own. A
# container's label says which process it is for (owner.py): a later run removes what a killed one
# left.
LABEL = "fcbuild"


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an image says about how it wants to run, as the engine reports it.

    healthcheck: the engine's own object, None when the image has none. shell: of CMD-SHELL.
    """

    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str
    stop_signal: str
    volumes: tuple[str, ...] = ()
    healthcheck: Mapping[str, Any] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = ()


class Engine(Protocol):
    """What the builders need of a container engine."""

    def has(self, tag: str) -> bool:
        """Return whether the engine holds this image."""

    def offers(self, reference: str) -> bool:
        """Return whether the image is held, or a registry that answers has it."""

    def digest(self, reference: str) -> str:
        """Return the digest that a registry has for a tag now. Raises SourceError."""

    def load(self, archive: Iterator[bytes], tag: str) -> None:
        """Take an image that comes in the form of `docker save`, under this tag."""

    def remove(self, tag: str) -> None:
        """Forget an image, if it is held; its layers may be another's too, and stay then."""

    def images(self) -> Mapping[str, float]:
        """Return the tags of the images of images/ that are held, each with when it was given, in
        seconds since 1970."""

    def sweep(self, *, dry_run: bool = False) -> int:
        """Remove the containers that killed runs have left, or only look; return how many."""

    def build(
        self,
        context: Callable[[IO[bytes]], None],
        tag: str,
        *,
        dockerfile: str | None,
        args: Mapping[str, str],
        target: str | None,
        platform: str,
        log: IO[bytes],
        log_path: Path,
        what: str,
    ) -> None:
        """Build a Dockerfile, read from the context's tar, to an image.

        dockerfile: its text, where it is not to be part of the context; else None. platform: what
        the image is for, like linux/amd64.
        """

    def export(
        self, tag: str, to: IO[bytes], *, platform: str, log: IO[bytes], log_path: Path
    ) -> None:
        """Write the flattened root filesystem of an image as a tar."""

    def config(self, tag: str) -> ImageConfig:
        """Return an image's configuration."""

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
        """Run a command in a container that is gone afterwards.

        mounts: host directory or file -> place in the container, followed by ":ro" or ":rw".
        Without `network` it has none and runs as the calling user; with it, as root. tell: what
        people are shown of a line of its output, while it runs.
        """

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
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Have a container ready for a command, without network and as the calling user; at the end
        it is gone. Yields what runs the command, once. timeout_s: also of the waiting."""


class Docker:
    """Docker Engine. anew: whether a build runs every step, also those whose result is held."""

    def __init__(self, *, anew: bool = False) -> None:
        self._anew = anew
        # One SDK client serves one thread at a time.
        self._local = threading.local()
        self._swept = False

    def has(self, tag: str) -> bool:
        from docker.errors import ImageNotFound

        with _api_errors():
            try:
                self._client.images.get(tag)
            except ImageNotFound:
                return False
        return True

    def offers(self, reference: str) -> bool:
        from docker.errors import DockerException

        if self.has(reference):
            return True
        try:
            self._client.api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
        except (DockerException, OSError):
            return False
        return True

    def digest(self, reference: str) -> str:
        # The engine asks, because it knows the user's registries, mirrors and credentials. What it
        # is told is checked when it counts: what comes for a digest has to have that digest.
        from docker.errors import APIError

        api = self._client.api
        try:
            found = api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
        except (APIError, OSError) as error:
            why = getattr(error, "explanation", None) or error
            raise SourceError(f"{reference}: no registry tells its digest: {why}") from error
        digest = str(found.get("Descriptor", {}).get("digest"))
        if not DIGEST.fullmatch(digest):
            raise SourceError(f"{reference}: a registry answers with {digest!r} for a digest")
        return digest

    def load(self, archive: Iterator[bytes], tag: str) -> None:
        repository, _, version = tag.partition(":")
        with _api_errors():
            # Sent as it comes; the SDK's types know only files.
            (image,) = self._client.images.load(archive)  # type: ignore[arg-type]
            # Again, because the engine notes only of this when it was given: see images().
            image.tag(repository, version)

    def remove(self, tag: str) -> None:
        from docker.errors import ImageNotFound

        with _api_errors(), contextlib.suppress(ImageNotFound):
            self._client.images.remove(tag)

    def images(self) -> dict[str, float]:
        found = {}
        with _api_errors():
            for image in self._client.images.list(filters={"reference": f"{LOCAL}*"}):
                given = (image.attrs.get("Metadata") or {}).get("LastTagTime", "")
                for tag in image.tags:
                    if tag.startswith(LOCAL):
                        found[tag] = _seconds(given) or _seconds(image.attrs.get("Created", ""))
        return found

    def sweep(self, *, dry_run: bool = False) -> int:
        from docker.errors import DockerException

        removed = 0
        with _api_errors():
            for found in self._client.api.containers(all=True, filters={"label": LABEL}):
                label = (found.get("Labels") or {}).get(LABEL, "")
                if owner.gone(label, age_s=time.time() - found.get("Created", 0)):
                    # Two runs may well see the same one.
                    with contextlib.suppress(DockerException):
                        if not dry_run:
                            self._client.api.remove_container(found["Id"], force=True, v=True)
                        removed += 1
        return removed

    def build(
        self,
        context: Callable[[IO[bytes]], None],
        tag: str,
        *,
        dockerfile: str | None,
        args: Mapping[str, str],
        target: str | None,
        platform: str,
        log: IO[bytes],
        log_path: Path,
        what: str,
    ) -> None:
        command = [self.cli, "build", "--progress=plain", "--platform", platform, "--tag", tag]
        command += ["--label", LABEL]
        for name, value in sorted(args.items()):
            command += ["--build-arg", f"{name}={value}"]
        if target:
            command += ["--target", target]
        if self._anew:
            command.append("--no-cache")

        def build(*more: str, stdin: Callable[[IO[bytes]], None] | None) -> None:
            run(
                [*command, *more],
                what=what,
                env={"DOCKER_BUILDKIT": "1"},
                stdin=stdin,
                log=log,
                log_path=log_path,
                timeout_s=BUILD_TIMEOUT_S,
            )

        if dockerfile is None:
            build("--file", "Dockerfile", "-", stdin=context)
            return
        # A tar brings its own Dockerfile, a directory does not have to.
        with tempfile.TemporaryDirectory(prefix="context-") as private:
            file, directory = Path(private, "Dockerfile"), Path(private, "context")
            file.write_text(dockerfile, encoding="utf-8", newline="")
            # Found before the context's own .dockerignore, whose rules have been followed.
            Path(private, "Dockerfile.dockerignore").touch()
            _unpack(context, directory)
            build("--file", str(file), str(directory), stdin=None)

    def export(
        self, tag: str, to: IO[bytes], *, platform: str, log: IO[bytes], log_path: Path
    ) -> None:
        # A Dockerfile that adds nothing: BuildKit streams the image's files, flattened, with
        # neither a container nor the files that an engine leaves in one.
        dockerfile = f"FROM {tag}\n".encode()

        def fill(stdin: IO[bytes]) -> None:
            shutil.copyfileobj(io.BytesIO(dockerfile), stdin)

        run(
            [
                *(self.cli, "build", "--progress=plain", "--platform", platform),
                *("--output", "type=tar,dest=-", "-"),
            ],
            what=f"exporting {tag}",
            # The command makes much short-lived garbage of a stream: it clears it away four times
            # as rarely, for a third less CPU and some 10 MiB.
            env={"DOCKER_BUILDKIT": "1", "GOGC": "400"},
            stdin=fill,
            stdout=to,
            log=log,
            log_path=log_path,
            timeout_s=EXPORT_TIMEOUT_S,
        )

    def config(self, tag: str) -> ImageConfig:
        with _api_errors():
            found: dict[str, Any] = self._client.images.get(tag).attrs["Config"] or {}
        return ImageConfig(
            entrypoint=tuple(found.get("Entrypoint") or ()),
            cmd=tuple(found.get("Cmd") or ()),
            env=tuple(found.get("Env") or ()),
            workdir=found.get("WorkingDir") or "/",
            user=found.get("User") or "",
            stop_signal=found.get("StopSignal") or "",
            volumes=tuple(sorted(found.get("Volumes") or ())),
            healthcheck=found.get("Healthcheck"),
            labels=dict(found.get("Labels") or {}),
            shell=tuple(found.get("Shell") or ()),
        )

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
        with _api_errors(), made as container:
            timer = threading.Timer(timeout_s, _kill, [container])
            timer.daemon = True
            try:
                container.start()
                timer.start()
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
        with _api_errors():
            container = self._client.containers.create(
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
            with _api_errors():
                container.remove(force=True)

    @property
    def _client(self) -> docker.DockerClient:
        if not hasattr(self._local, "client"):
            import docker

            with _api_errors():
                self._local.client = docker.from_env(timeout=API_TIMEOUT_S)
                self._local.client.ping()
        client: docker.DockerClient = self._local.client
        return client

    @cached_property
    def _rootless(self) -> bool:
        options = self._client.info().get("SecurityOptions") or []
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


def no_registry(reference: str) -> SourceError:
    """Return the error for an image that neither the engine nor a registry has."""
    return SourceError(
        f"the base image {reference} is not held by the engine and no registry answers for it",
        hint="check the network and the name, or `docker pull` it where there is a registry",
    )


def _unpack(write: Callable[[IO[bytes]], None], directory: Path) -> None:
    """Make a directory of the tar that `write` writes; links keep their times too."""
    directory.mkdir()
    with tempfile.TemporaryFile(dir=directory.parent) as file:
        write(file)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            # Our own tar: links may lead anywhere, as the engine does not follow them.
            tar.extraction_filter = lambda member, path: member
            tar.extractall(directory)
            for entry in reversed(tar.getmembers()):
                times = (entry.mtime, entry.mtime)
                os.utime(directory / entry.name, times, follow_symlinks=False)


def _mount(path: Path, place: str) -> docker.types.Mount:
    # Not the short form, SOURCE:TARGET: a path may have a colon.
    import docker.types

    target, _, mode = place.rpartition(":")
    source = os.fspath(path.resolve())
    return docker.types.Mount(target, source, type="bind", read_only=mode == "ro")


def _seconds(text: str) -> float:
    """Return a time of the engine's in seconds since 1970; 0 for none."""
    try:
        # It has nanoseconds, which Python has not.
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()
    except ValueError:
        return 0.0


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
def _api_errors() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
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
