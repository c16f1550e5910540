"""The build context of an image: which files it holds, and the one tar the engine gets of it.

The tar is normalised (names sorted, owner 0:0, modes 0644 or 0755, one fixed time), so what the
engine sees depends on nothing that the fingerprint does not cover: not on the clone's umask, owner
or file times.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fcbuild.errors import SpecError

# image.toml is ours, not the engine's: the machine's size or a check must not invalidate a layer.
_OURS = {"image.toml"}
_NEVER = {".git", ".DS_Store", "__pycache__"}

# The time of every file in a context, and of what we add to a root filesystem:
# 2020-01-01T00:00:00Z. Zero would do, but some programs take 1970 for "no time at all".
EPOCH = 1577836800


def files(root: Path) -> list[Path]:
    """Return every file, link and directory of the context, sorted, as .dockerignore leaves them.

    Raises SpecError for what no engine can take (sockets, devices).
    """
    kept = sorted(_ignored_out(root) if (root / ".dockerignore").exists() else _walk(root))
    for path in kept:
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise SpecError(
                [f"{path}: neither a file, a link nor a directory"],
                hint="remove it, or name it in .dockerignore",
            )
    return kept


def write_tar(root: Path, dockerfile: str, out: IO[bytes]) -> None:
    """Write the context to a stream, its Dockerfile replaced by the given text."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
        _add(tar, tarfile.TarInfo("Dockerfile"), dockerfile.encode())
        for path in files(root):
            name = path.relative_to(root)
            if name == Path("Dockerfile"):
                continue
            status = path.lstat()
            entry = tarfile.TarInfo(os.fspath(name))
            entry.mtime = EPOCH
            if stat.S_ISDIR(status.st_mode):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            elif stat.S_ISLNK(status.st_mode):
                entry.type, entry.mode = tarfile.SYMTYPE, 0o777
                entry.linkname = os.fspath(path.readlink())
                tar.addfile(entry)
            else:
                entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
                with path.open("rb") as file:
                    entry.size = os.fstat(file.fileno()).st_size
                    tar.addfile(entry, file)


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, content: bytes) -> None:
    entry.mtime, entry.size, entry.mode = EPOCH, len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def _walk(root: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(root):
        directories[:] = sorted(name for name in directories if name not in _NEVER)
        for name in (*directories, *names):
            path = Path(parent, name)
            if name not in _NEVER and not (path.parent == root and name in _OURS):
                yield path


def _ignored_out(root: Path) -> Iterator[Path]:
    # The engine's SDK knows the rules of .dockerignore; it is slow to import, hence here.
    from docker.utils.build import exclude_paths

    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    kept = {os.fspath(root / name) for name in exclude_paths(os.fspath(root), patterns)}
    for path in _walk(root):
        if os.fspath(path) in kept or path == root / "Dockerfile":
            yield path
