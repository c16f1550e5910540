"""The container engine: what is asked of it, and Docker's images. Its containers: containers.py.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

from fcbuild.build.containers import LABEL, Containers, api_errors
from fcbuild.dockerfile import LOCAL
from fcbuild.errors import SourceError
from fcbuild.lock import DIGEST
from fcbuild.run import run

BUILD_TIMEOUT_S = 3600.0
EXPORT_TIMEOUT_S = 900.0


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


class Docker(Containers):
    """Docker Engine. anew: whether a build runs every step, also those whose result is held.
    preload: a shared library for every program that `run` and `standby` start without network."""

    def __init__(self, *, anew: bool = False, preload: Path | None = None) -> None:
        super().__init__(preload=preload)
        self._anew = anew

    def has(self, tag: str) -> bool:
        from docker.errors import ImageNotFound

        with api_errors():
            try:
                self.client.images.get(tag)
            except ImageNotFound:
                return False
        return True

    def offers(self, reference: str) -> bool:
        from docker.errors import DockerException

        if self.has(reference):
            return True
        try:
            self.client.api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
        except (DockerException, OSError):
            return False
        return True

    def digest(self, reference: str) -> str:
        # The engine asks, because it knows the user's registries, mirrors and credentials. What it
        # is told is checked when it counts: what comes for a digest has to have that digest.
        from docker.errors import APIError

        api = self.client.api
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
        with api_errors():
            # Sent as it comes; the SDK's types know only files.
            (image,) = self.client.images.load(archive)  # type: ignore[arg-type]
            # Again, because the engine notes only of this when it was given: see images().
            image.tag(repository, version)

    def remove(self, tag: str) -> None:
        from docker.errors import ImageNotFound

        with api_errors(), contextlib.suppress(ImageNotFound):
            self.client.images.remove(tag)

    def images(self) -> dict[str, float]:
        found = {}
        with api_errors():
            for image in self.client.images.list(filters={"reference": f"{LOCAL}*"}):
                given = (image.attrs.get("Metadata") or {}).get("LastTagTime", "")
                for tag in image.tags:
                    if tag.startswith(LOCAL):
                        found[tag] = _seconds(given) or _seconds(image.attrs.get("Created", ""))
        return found

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
        with api_errors():
            found: dict[str, Any] = self.client.images.get(tag).attrs["Config"] or {}
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


def _seconds(text: str) -> float:
    """Return a time of the engine's in seconds since 1970; 0 for none."""
    try:
        # It has nanoseconds, which Python has not.
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()
    except ValueError:
        return 0.0
