"""Root filesystems: the image's files, PID 1 and the boot config, in one ext4 image."""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from fcbuild import dockerfile, progress
from fcbuild.build import bootconfig, entrypoint, health
from fcbuild.build.bootconfig import BootConfig, Where
from fcbuild.build.engine import Engine, ImageConfig
from fcbuild.build.files import OURS, Files
from fcbuild.build.tree import MOUNTED, Tree
from fcbuild.errors import BuildError, CommandFailed
from fcbuild.ext4.layout import Identity
from fcbuild.plan import read_dockerfile
from fcbuild.recipes import OVERLAY_FILE, ROOTFS_FILE, Recipe
from fcbuild.spec import ImageSpec
from fcbuild.store import Stage
from fcbuild.tables import MIB

# Mount points that PID 1 needs: made here, so that a read-only root has them too.
_MOUNT_POINTS = {"/dev": 0o755, "/proc": 0o755, "/run": 0o755, "/sys": 0o755, "/tmp": 0o1777}
# What PID 1 fills in at boot, and where programs look for the list of what is mounted.
_PLACEHOLDERS = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_MOUNT_LIST, _KERNELS_LIST = "/etc/mtab", "/proc/mounts"
# Writable on a read-only root without a word about it.
_WRITABLE = ("run", "tmp", "var/tmp")

_MAX_TEXT = 4 * MIB  # an /etc/passwd larger than this is none
_MAX_USERS = 1000  # in the artifact's facts
_SHOWN = 10  # names in a warning

CHECK_TIMEOUT_S = 1800.0


def build(
    recipe: Recipe,
    spec: ImageSpec,
    engine: Engine,
    *,
    image: str,
    toolchain: str,
    init: Path,
    epoch: int,
    stage: Stage,
) -> None:
    """Make rootfs.ext4 from the engine's image, no file of it newer than `epoch`.

    Raises BuildError, CommandFailed.
    """
    says = engine.config(image)
    # Its container starts beside the export.
    stage.gates.append(stage.held.enter_context(checking(engine, toolchain, stage)))
    where = _where(spec)
    own = _identity(recipe.name, "")
    at = stage.file(ROOTFS_FILE)
    with progress.step(f"{recipe}: packing {image}"), Files(at, own, epoch) as files:
        _export(engine, image, spec.platform, files, stage)
        passwd = files.tree.text("/etc/passwd", _MAX_TEXT)
        volumes = _volumes(says, where("VOLUME"))
        config = bootconfig.compose(
            says,
            spec,
            passwd=passwd,
            group=files.tree.text("/etc/group", _MAX_TEXT),
            writable=_writable(files.tree, [*spec.writable, *volumes]) if spec.readonly else (),
            where=where,
        )
        place = where("ENTRYPOINT" if says.entrypoint else "CMD")
        if spec.init:
            place = f"images/{spec.name}/image.toml: init"
        _check_programs(config, files.tree, volumes, spec.arch, place, where)
        furnish(files, [config.workdir, *volumes, *spec.writable])
        files.directory(OURS)
        files.directory(f"{OURS}/root", 0o700)
        files.directory(f"{OURS}/rw", 0o700)
        files.file(f"{OURS}/init", 0o755, init.read_bytes())
        files.file(f"{OURS}/boot", 0o600, config.render())
        size = files.finish(spec.size, spec.free)
        if spec.overlay_size is not None:
            own = _identity(recipe.name, "overlay ")
            with Files(stage.file(OVERLAY_FILE), own) as overlay:
                overlay.finish(spec.overlay_size, 0)
    _warn(spec, says, files)
    stage.facts["size"] = size
    stage.facts["content"] = files.content
    stage.facts["argv"] = list(config.argv)
    stage.facts["health"] = config.health is not None
    stage.facts["health_ms"] = config.health.verdict if config.health else 0
    stage.facts["users"] = bootconfig.users(passwd, _MAX_USERS)


def furnish(files: Files, directories: Iterable[str]) -> None:
    """Add what the image lacks of mount points, of these directories and of what PID 1 fills in.

    Raises BuildError where a file of the image is in the way.
    """
    for path, mode in [*_MOUNT_POINTS.items(), *((path, 0o755) for path in directories)]:
        *parents, last = [*files.tree.missing(path)] or [""]
        for name in parents:
            files.directory(name)
        if last:
            files.directory(last, mode)
    for path in (*_PLACEHOLDERS, _MOUNT_LIST):
        parent = posixpath.dirname(path)
        for name in files.tree.missing(parent):
            files.directory(name)
        name = posixpath.join(files.tree.resolve(parent) or "", posixpath.basename(path))
        if name in files.tree.nodes:  # a link is one, wherever it leads
            continue
        if path == _MOUNT_LIST:
            files.link(name, _KERNELS_LIST)
        else:
            files.file(name, 0o644, b"")


def _export(engine: Engine, image: str, platform: str, files: Files, stage: Stage) -> None:
    """Have the engine write the image's files to a pipe, and take them from it."""
    reading, writing = os.pipe()

    def copy() -> None:
        with os.fdopen(reading, "rb") as source:
            files.copy(source)

    with ThreadPoolExecutor(1) as pool:
        copying = pool.submit(copy)
        try:
            with os.fdopen(writing, "wb") as sink:
                engine.export(
                    image, sink, platform=platform, log=stage.log, log_path=stage.log_path
                )
        except CommandFailed:
            # When it is us who closed the pipe, we know better why.
            refusal = copying.exception()
            if refusal is None or isinstance(refusal, tarfile.TarError):
                raise
    try:
        copying.result()
    except tarfile.TarError as error:
        raise BuildError(f"the engine's tar of {image} cannot be read: {error}") from error


def checking(
    engine: Engine, toolchain: str, stage: Stage
) -> AbstractContextManager[Callable[[], None]]:
    """Have e2fsck, which shares nothing with what wrote them, ready to look at the file systems:
    yields what has it look. Its status 0 is "no error found"; -n changes nothing. Raises
    CommandFailed."""
    return engine.standby(
        toolchain,
        ["sh", "-euc", 'for image in /out/*.ext4; do e2fsck -fn "$image"; done'],
        what="checking the root filesystem with e2fsck",
        mounts={stage.directory: "/out:ro"},
        log=stage.log,
        log_path=stage.log_path,
        timeout_s=CHECK_TIMEOUT_S,
    )


def _identity(seed: str, what: str) -> Identity:
    """Return UUIDs that follow from a seed, so that they are the same each time.

    They are in every checksum of the file system: with the image's name as seed, what a change does
    not touch has the same bytes before and after it.
    """

    def derived(purpose: str) -> uuid.UUID:
        digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
        return uuid.UUID(bytes=digest[:16], version=4)

    return Identity(number=derived(f"{what}uuid"), hashing=derived(f"{what}hash"))


def _where(spec: ImageSpec) -> Where:
    text = read_dockerfile(spec)

    def where(*instructions: str) -> str:
        line = dockerfile.line_of(text, instructions, spec.build_target)
        return f"images/{spec.name}/Dockerfile" + (f":{line}" if line else "")

    return where


def _volumes(image: ImageConfig, where: str) -> list[str]:
    """Return the image's VOLUMEs as absolute paths. Raises BuildError."""
    volumes = [posixpath.normpath(f"/{volume.lstrip('/')}") for volume in image.volumes]
    if "/" in volumes:
        raise BuildError(f"{where}: VOLUME /: the root cannot be a volume")
    return volumes


def _writable(tree: Tree, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the directories to be writable on a read-only root, each once and none in another."""
    kept: list[str] = [*_WRITABLE]
    names = {name for path in paths if (name := tree.resolve(path))}
    for name in sorted(names):
        if not any(name == top or name.startswith(f"{top}/") for top in kept):
            kept.append(name)
    return tuple(f"/{name}" for name in kept[len(_WRITABLE) :])


def _check_programs(
    config: BootConfig, tree: Tree, volumes: list[str], arch: str, place: str, where: Where
) -> None:
    """Raise BuildError for a program that cannot be started; warn of such a health check.

    place: where the program is named.
    """
    hidden = [*MOUNTED, *(name for path in volumes if (name := tree.resolve(path)))]
    within = entrypoint.Surroundings(tree, config.path, config.workdir, hidden, arch)
    entrypoint.check(config.argv[0], within, place)
    if config.health:
        try:
            entrypoint.check(config.health.argv[0], within, where("HEALTHCHECK"))
        except BuildError as error:
            progress.say(f"warning: the health check cannot succeed: {error.message}")


def _warn(spec: ImageSpec, image: ImageConfig, files: Files) -> None:
    if spec.init and (image.healthcheck or health.LABEL in image.labels):
        progress.say(
            f"warning: {spec.name}: HEALTHCHECK is not run, init = {spec.init!r} looks after "
            "its services itself"
        )
    if late := files.untimely:
        more = f" and {len(late) - _SHOWN} more" if len(late) > _SHOWN else ""
        progress.say(
            f"warning: {spec.name}: times before 1901 or after 2446 are cut to these: "
            f"{', '.join(late[:_SHOWN])}{more}"
        )
