"""Base images, bootstrapped from a distribution's signed packages: no registry is needed.

A locked base is made of exactly the packages of its lock, and of the same bytes wherever and
whenever it is made. A distribution's archive keeps only its newest packages; the Debian snapshot
archive keeps all, under the time at which the archive had them.
"""

from __future__ import annotations

import os
import re
import shlex
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fcbuild import context, lock, packages, progress
from fcbuild.build import foreign, image_archive
from fcbuild.build.engine import Engine
from fcbuild.errors import BuildError, CommandFailed, ToolMissing
from fcbuild.fingerprint import Json
from fcbuild.lock import LockedBase
from fcbuild.recipes import Recipe
from fcbuild.run import need, run
from fcbuild.series import DEBIAN_ARCH
from fcbuild.spec import Bootstrap
from fcbuild.store import Artifact, Stage

TAR = "rootfs.tar"
TIMEOUT_S = 1800.0
MOVED = "moved"  # the fact of a base that is not what was locked: how its packages differ

# What the distributions' own images say, so that a Dockerfile FROM ours behaves the same.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONFIG: Mapping[str, Json] = {"Env": [f"PATH={_PATH}"], "Cmd": ["bash"]}

# Archives, and where the snapshot archive has them. (https://snapshot.debian.org/)
SNAPSHOTS: Mapping[str, str] = {
    "http://deb.debian.org/debian": "http://snapshot.debian.org/archive/debian",
    "http://security.debian.org/debian-security": (
        "http://snapshot.debian.org/archive/debian-security"
    ),
}
# The snapshot archive takes a picture every six hours, so what the archive had at some time is in
# the picture before it or, when it was new then, in the one after.
_PICTURES_S = (0, 6 * 3600)
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"  # Debian's, on Debian

_PARTIAL = ("/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial")
_SOURCES = "etc/apt/sources.list"
_PINS = "etc/apt/preferences.d/fcbuild"
_STATUS = "var/lib/dpkg/status"
_SOURCE = re.compile(r"deb (?:\[[^]]*\] )?(\S+) (.+)")
_SHOWN = 5  # packages that moved, in a message


def build(
    recipe: Recipe, spec: Bootstrap, locked: LockedBase | None, stage: Stage, *, strict: bool
) -> None:
    """Make rootfs.tar with the locked packages: from the archive as it is, else from the snapshot
    archive. When neither has them it is made of what the archive has, and the facts say so.

    Raises CommandFailed, ToolMissing, and with `strict` BuildError for packages that moved.
    """
    tar = stage.file(TAR)
    epoch = locked.time if locked else context.EPOCH
    pins = locked.packages if locked else {}
    with progress.step(f"{recipe}: bootstrapping {spec.suite} from signed packages"):
        bootstrap(spec, tar, epoch=epoch, pins=pins, log=stage.log, log_path=stage.log_path)
    if locked is None or not (moved := _moved(locked, tar)):
        return
    if _from_snapshot(recipe, spec, locked, stage):
        return
    lines = [
        f"{recipe}: the archive has no longer the locked packages, and no snapshot has them:",
        *(f"  {line}" for line in moved[:_SHOWN]),
    ]
    if len(moved) > _SHOWN:
        lines.append(f"  and {len(moved) - _SHOWN} more")
    if strict:
        raise BuildError("\n".join(lines), hint="doit lock moves the lock to what the archive has")
    progress.say("\n".join(["warning: " + lines[0], *lines[1:]]))
    progress.say("  it is built of what the archive has; doit lock moves the lock to that")
    stage.facts[MOVED] = moved


def insist(artifact: Artifact | None) -> None:
    """Raise BuildError for a base that was made of other packages than the locked ones."""
    moved = artifact.facts.get(MOVED) if artifact else None
    if artifact and moved:
        raise BuildError(
            f"base:{artifact.name} in the store is not made of the locked packages: {moved}",
            hint=f"doit lock moves the lock; or remove {artifact.directory} to try again",
        )


def bootstrap(
    spec: Bootstrap,
    tar: Path,
    *,
    epoch: int,
    pins: Mapping[str, str],
    log: IO[bytes],
    log_path: Path,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Write the tar of a base's root filesystem, no file of it newer than `epoch`.

    pins: the versions to take of packages, where the archive has these. sources: lines of
    sources.list to take the packages from, each with the line that the image gets in its place;
    None for the archive that the suite has. mmdebstrap checks signatures and picks its mode by
    itself: plain as root, else a user namespace.
    Raises CommandFailed, ToolMissing.
    """
    foreign.insist(spec.arch)
    if os.getuid() and not Path("/usr/bin/newuidmap").exists():
        raise ToolMissing(
            "bootstrapping a base image without root needs newuidmap",
            hint="apt-get install uidmap",
        )
    run(
        [
            need("mmdebstrap", "mmdebstrap"),
            "--variant=minbase",
            f"--architectures={','.join(_architectures(spec))}",
            f"--include={','.join(spec.packages)}",
            *([f"--setup-hook={_pinning(pins)}"] if pins else []),
            *(f"--customize-hook={hook}" for hook in _hooks(list((sources or {}).values()))),
            spec.suite,
            tar,
            *(sources or {}),
        ],
        what=f"bootstrapping {spec.suite}",
        env={"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"},
        log=log,
        log_path=log_path,
        timeout_s=TIMEOUT_S,
    )


def installed(tar: Path) -> dict[str, str]:
    """Return name -> version of the packages in a root filesystem's tar."""
    return dict(packages.dpkg(_read(tar, _STATUS)))


def load(engine: Engine, artifact: Artifact, tag: str, arch: str) -> None:
    """Give the base image to the engine, unless it has it."""
    if not engine.has(tag):
        tar, sha256 = artifact.file(TAR), artifact.digests[TAR]
        engine.load(
            image_archive.write(tar, sha256, tag, arch=DEBIAN_ARCH[arch], config=_CONFIG), tag
        )


def _architectures(spec: Bootstrap) -> list[str]:
    """Return the base's own architecture, and those of its packages that are of another."""
    own = DEBIAN_ARCH[spec.arch]
    others = {package.partition(":")[2] for package in spec.packages} - {"", own}
    return [own, *sorted(others)]


def _pinning(pins: Mapping[str, str]) -> str:
    """Return the command that has apt prefer these versions to newer ones: an archive keeps those
    before for a while. A priority above 1000 goes before everything (apt_preferences(5))."""
    stanzas = "\n".join(
        f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n"
        for name, version in sorted(pins.items())
    )
    return f"printf '%s' {shlex.quote(stanzas)} > \"$1/{_PINS}\""


def _hooks(sources: Sequence[str]) -> Iterator[str]:
    """Yield what is done to the finished root filesystem, $1, so that nothing in it depends on the
    machine or the archive that it came from. (/bin/sh; lines of sources.list have no quotes.)"""
    # mmdebstrap copies two from this machine; in a container and in a VM they are made anew.
    yield f'rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/{_PINS}"'
    # apt gives these to its own user, but not where he cannot get to: below a private TMPDIR.
    for directory in _PARTIAL:
        yield f'! test -d "$1{directory}" || chroot "$1" chown _apt:root {directory}'
    if sources:
        yield f"printf '%s\\n' {' '.join(map(shlex.quote, sources))} > \"$1/{_SOURCES}\""
    else:
        # Where this machine's apt does not trust the archive's key, it is named in the line.
        yield f'sed -i "s/^deb \\[[^]]*\\] /deb /" "$1/{_SOURCES}"'


def _moved(locked: LockedBase, tar: Path) -> list[str]:
    return lock.differences(locked.packages, installed(tar))


def _from_snapshot(recipe: Recipe, spec: Bootstrap, locked: LockedBase, stage: Stage) -> bool:
    """Try to make rootfs.tar of the locked packages from the snapshot archive."""
    usual = _read(stage.file(TAR), _SOURCES).splitlines()
    tar = stage.scratch / TAR
    for seconds in _PICTURES_S:
        when = datetime.fromtimestamp(locked.time + seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
        sources = _snapshot(usual, when)
        if sources is None:
            return False
        try:
            with progress.step(
                f"{recipe}: its packages have moved on; bootstrapping from the snapshot of {when}"
            ):
                bootstrap(
                    spec,
                    tar,
                    epoch=locked.time,
                    pins=locked.packages,
                    log=stage.log,
                    log_path=stage.log_path,
                    sources=sources,
                )
        except CommandFailed:
            return False  # its log says why, mostly that the snapshot archive cannot be reached
        if not _moved(locked, tar):
            tar.replace(stage.file(TAR))
            return True
    return False


def _snapshot(usual: Sequence[str], when: str) -> dict[str, str] | None:
    """Return the snapshot's line for each line of a sources.list, or None where one has none."""
    lines = {}
    for line in usual:
        match = _SOURCE.fullmatch(line)
        archive = SNAPSHOTS.get(match[1].rstrip("/")) if match else None
        if match is None or archive is None:
            return None
        options = f"check-valid-until=no signed-by={_KEYRING}"
        lines[f"deb [{options}] {archive}/{when} {match[2]}"] = line
    return lines


def _read(tar: Path, name: str) -> str:
    with tarfile.open(tar, "r:") as archive:
        file = archive.extractfile(f"./{name}")
        return file.read().decode("utf-8", "replace") if file else ""
