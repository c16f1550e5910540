"""Images as files for others' tools, without a registry.

    dir            the bundle's files in a directory
    tar            the same in an archive, below a directory of the image's name
    oci-layout     what publishing pushes, as a directory (layout.py)
    containerdisk  a container image with the disk in it, as an archive (containerdisk.py)

What is written appears under its name when it is whole. The same image gives the same bytes.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from fcbuild import microvm, progress
from fcbuild.errors import FcBuildError, SpecError
from fcbuild.publish import containerdisk, layout, tarball
from fcbuild.publish.bundle import Bundle


def write(bundle: Bundle, form: str, to: Path) -> None:
    """Write a bundle to a path that is not there yet. form: one of FORMATS.

    Raises SpecError for a path that cannot be, FcBuildError when it cannot be written; nothing is
    left then.
    """
    if os.path.lexists(to):
        raise SpecError(
            [f"to={to} is there already"], hint="remove it, or name a path that is free"
        )
    if not os.path.isdir(to.parent):  # noqa: PTH112 (Path's raises for a name too long)
        raise SpecError([f"to={to}: {to.parent} is not a directory"], hint="make it first")
    unfinished = to.with_name(f".export-{secrets.token_hex(8)}")
    try:
        with progress.step(f"writing {to}"):
            FORMATS[form](bundle, unfinished)
        unfinished.rename(to)
    except OSError as error:
        raise FcBuildError(
            f"to={to} cannot be written: {error.strerror}", hint="name a path where there is room"
        ) from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)


def _directory(bundle: Bundle, to: Path) -> None:
    to.mkdir()
    for file in bundle.files:
        path = to / file.title
        if isinstance(file.source, bytes):
            path.write_bytes(file.source)
        else:
            microvm.copy_disk(file.source, path)
        path.chmod(file.mode)


def _archive(bundle: Bundle, to: Path) -> None:
    top = bundle.image
    files = (tarball.file(f"{top}/{file.title}", file) for file in bundle.files)
    _save(tarball.stream((tarball.directory(top), *files)), bundle, to)


def _containerdisk(bundle: Bundle, to: Path) -> None:
    _save(containerdisk.stream(bundle), bundle, to)


def _save(pieces: Iterable[bytes], bundle: Bundle, to: Path) -> None:
    meter = progress.Meter(sum(file.size for file in bundle.files))
    with to.open("wb") as out:
        for piece in pieces:
            out.write(piece)
            meter.add(len(piece))


FORMATS: dict[str, Callable[[Bundle, Path], None]] = {
    "dir": _directory,
    "tar": _archive,
    "oci-layout": layout.write,
    "containerdisk": _containerdisk,
}
