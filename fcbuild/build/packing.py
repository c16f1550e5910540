"""Writing a root filesystem: the image's files, PID 1 and the boot config, in one ext4 image.

It has a process of its own, because it is Python's own work, and for that all threads of a process
share one core. Its standard input is an order and then the engine's tar; its standard output says
what was packed, or what was wrong.
"""

from __future__ import annotations

import hashlib
import pickle
import posixpath
import sys
import tarfile
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from fcbuild import dockerfile
from fcbuild.build import bootconfig, entrypoint, health
from fcbuild.build.bootconfig import BootConfig, Where
from fcbuild.build.files import OURS, Files
from fcbuild.build.tree import MOUNTED, Tree
from fcbuild.errors import BuildError, CommandFailed
from fcbuild.ext4.layout import Identity
from fcbuild.plan import PACKAGE, read_dockerfile
from fcbuild.recipes import OVERLAY_FILE, ROOTFS_FILE
from fcbuild.run import conversation
from fcbuild.spec import ImageSpec
from fcbuild.tables import MIB

if TYPE_CHECKING:
    from fcbuild.build.engine import ImageConfig
    from fcbuild.fingerprint import Json
    from fcbuild.store import Stage

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

TIMEOUT_S = 4 * 3600.0


class Order(NamedTuple):
    """What is to be packed. seed: of the file systems' UUIDs; says: the engine's config of the
    image; init: PID 1; epoch: the time that no file may be newer than, in seconds since 1970; to:
    the directory for what is made."""

    seed: str
    spec: ImageSpec
    says: ImageConfig
    init: Path
    epoch: int
    to: Path


class Packed(NamedTuple):
    """What was packed: the artifact's facts, and what people are to be warned of."""

    facts: dict[str, Json]
    warnings: list[str]


def packed(order: Order, image: str, export: Callable[[IO[bytes]], None], stage: Stage) -> Packed:
    """Have an image packed, in a process of its own. export: writes the tar of its files.

    Raises BuildError, and CommandFailed where the export failed.
    """
    failure = None
    with conversation(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        what=f"packing {image}",
        # Our own package, and no other in the working directory.
        env={"PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"},
        log=stage.log,
        timeout_s=TIMEOUT_S,
    ) as (stdin, stdout):
        try:
            with stdin:
                pickle.dump(order, stdin)
                stdin.flush()
                export(stdin)
        except (CommandFailed, BrokenPipeError) as error:
            failure = error
        said = stdout.read()
    answer: Packed | Exception
    try:
        answer, ended = pickle.loads(said)
    except (EOFError, pickle.UnpicklingError) as error:
        raise BuildError(
            f"packing {image} did not come to its end",
            hint=f"{stage.log_path} has its last words; without any, memory may have run out",
        ) from error
    # Of a tar that we did not want to its end, the export only knows that nobody takes it.
    if failure and ended:
        raise failure
    if isinstance(answer, tarfile.TarError):
        raise BuildError(f"the engine's tar of {image} cannot be read: {answer}") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def pack(order: Order, tar: IO[bytes]) -> Packed:
    """Make rootfs.ext4, and where it is asked for overlay.ext4, of an image's tar.

    Raises BuildError, and tarfile.TarError for what is no tar.
    """
    spec, says = order.spec, order.says
    where = _where(spec)
    with Files(order.to / ROOTFS_FILE, identity(order.seed, ""), order.epoch) as files:
        files.copy(tar)
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
        warnings = list(_check_programs(config, files.tree, volumes, spec.arch, place, where))
        furnish(files, [config.workdir, *volumes, *spec.writable])
        files.directory(OURS)
        files.directory(f"{OURS}/root", 0o700)
        files.directory(f"{OURS}/rw", 0o700)
        files.file(f"{OURS}/init", 0o755, order.init.read_bytes())
        files.file(f"{OURS}/boot", 0o600, config.render())
        size = files.finish(spec.size, spec.free)
        if spec.overlay_size is not None:
            with Files(order.to / OVERLAY_FILE, identity(order.seed, "overlay ")) as overlay:
                overlay.finish(spec.overlay_size, 0)
    facts: dict[str, Json] = {
        "size": size,
        "content": files.content,
        "argv": list(config.argv),
        "health": config.health is not None,
        "health_ms": config.health.verdict if config.health else 0,
        "users": bootconfig.users(passwd, _MAX_USERS),
    }
    return Packed(facts, [*warnings, *_warnings(spec, says, files)])


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


def identity(seed: str, what: str) -> Identity:
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
) -> Iterator[str]:
    """Raise BuildError for a program that cannot be started; yield a warning of such a check.

    place: where the program is named.
    """
    hidden = [*MOUNTED, *(name for path in volumes if (name := tree.resolve(path)))]
    within = entrypoint.Surroundings(tree, config.path, config.workdir, hidden, arch)
    entrypoint.check(config.argv[0], within, place)
    if config.health:
        try:
            entrypoint.check(config.health.argv[0], within, where("HEALTHCHECK"))
        except BuildError as error:
            yield f"the health check cannot succeed: {error.message}"


def _warnings(spec: ImageSpec, image: ImageConfig, files: Files) -> Iterator[str]:
    if spec.init and (image.healthcheck or health.LABEL in image.labels):
        yield (
            f"{spec.name}: HEALTHCHECK is not run, init = {spec.init!r} looks after "
            "its services itself"
        )
    if late := files.untimely:
        more = f" and {len(late) - _SHOWN} more" if len(late) > _SHOWN else ""
        yield (
            f"{spec.name}: times before 1901 or after 2446 are cut to these: "
            f"{', '.join(late[:_SHOWN])}{more}"
        )


def main() -> None:
    """Pack what standard input brings; say on standard output what came of it."""
    answer: Packed | Exception
    with open(0, "rb") as source:  # closed before we answer: whoever fills it is to see that
        try:
            answer = pack(pickle.load(source), source)
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = error
        ended = not source.read(1)
    pickle.dump((answer, ended), sys.stdout.buffer)
