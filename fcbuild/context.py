"""The build context of an image: what it holds, and the one tar the engine gets of it.

It is what the engine itself would take of the directory, .dockerignore and all, but for image.toml,
which is ours. The tar is normalised (names sorted, owner 0:0, modes 0644 or 0755, one fixed time),
so what the engine sees depends on nothing that the fingerprint does not cover: not on the clone's
umask, owner or file times. And it is what the fingerprint covers: each entry is compared with its
description while it is written.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fcbuild import fingerprint
from fcbuild.digests import Digests
from fcbuild.errors import InputChanged, SpecError
from fcbuild.ignore import Rules

if TYPE_CHECKING:
    import tarfile

# image.toml is ours, not the engine's: the machine's size or a check must not invalidate a layer.
_OURS = "image.toml"
DOCKERFILE = "Dockerfile"
# The engine looks for the first before the second.
IGNORE_FILES = (f"{DOCKERFILE}.dockerignore", ".dockerignore")

_BROKEN = b"broken off"  # no tar ends so: shorter than a block

# The time of every file in a context, and of what we add to a root filesystem:
# 2020-01-01T00:00:00Z. Zero would do, but some programs take 1970 for "no time at all".
EPOCH = 1577836800

Entry = tuple[str, str, os.stat_result]  # the name in the context, the path, what lstat said


def describe(
    root: Path, digests: Digests | None = None, barred: Collection[Path] = ()
) -> dict[str, str]:
    """Describe each file, link and directory of the context, as .dockerignore leaves them.

    barred: directories that no context may hold, because this program writes there.
    A context that changes meanwhile is read once more. Raises SpecError, InputChanged.
    """
    digests = digests or Digests()
    try:
        return _describe(root, digests, barred)
    except InputChanged:
        return _describe(root, digests, barred)


def entries(root: Path, barred: Collection[Path] = ()) -> list[Entry]:
    """Return every file, link and directory of the context, sorted.

    Raises SpecError for what no engine can take (sockets, devices), InputChanged.
    """
    try:
        return list(_walk(os.fspath(root), "", _rules(root), (), set(_identities(barred))))
    except RecursionError as error:
        raise SpecError([f"{root}: its directories are nested too deeply"]) from error


def write_tar(
    root: Path, dockerfile: str | None, out: IO[bytes], described: Mapping[str, str]
) -> None:
    """Write the context to a stream, its Dockerfile replaced by the given text, if there is one.

    described: what the context has to be, from `describe`. Where it is something else the stream
    breaks off, so that nobody can take it for whole. Raises InputChanged, SpecError.
    """
    import tarfile

    try:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as to:
            _write(to, root, dockerfile, described)
    except (InputChanged, SpecError):
        out.write(_BROKEN)
        raise


def _write(
    tar: tarfile.TarFile, root: Path, dockerfile: str | None, described: Mapping[str, str]
) -> None:
    import io
    import tarfile

    found = entries(root)
    names = {fingerprint.name(name): path for name, path, _ in found}
    if odd := sorted(names.keys() ^ described.keys()):
        raise InputChanged(names.get(odd[0]) or f"{root}/{odd[0]}")
    for name, path, status in found:
        kind, _, sha256 = described[fingerprint.name(name)].partition(" ")
        entry = tarfile.TarInfo(name)
        entry.mtime = EPOCH
        if name == DOCKERFILE and dockerfile is not None:
            entry.size, entry.mode = len(dockerfile.encode()), 0o644
            tar.addfile(entry, io.BytesIO(dockerfile.encode()))
        elif stat.S_ISREG(status.st_mode):
            entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            if kind != fingerprint.kind(status):
                raise InputChanged(path)
            with _open(path) as file:
                entry.size = os.fstat(file.fileno()).st_size
                tar.addfile(entry, _Checked(file, path, entry.size, sha256))
        else:
            if fingerprint.describe(path, status) != described[fingerprint.name(name)]:
                raise InputChanged(path)
            if stat.S_ISDIR(status.st_mode):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            else:
                entry.type, entry.mode = tarfile.SYMTYPE, 0o777
                entry.linkname = os.fspath(Path(path).readlink())
            tar.addfile(entry)


class _Checked:
    """A file to read once, whose last bytes are given out only if all have the right digest."""

    def __init__(self, file: IO[bytes], path: str, size: int, sha256: str) -> None:
        self._file, self._path, self._left, self._sha256 = file, path, size, sha256
        self._hasher = hashlib.sha256()
        if not size:
            self._compare()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._hasher.update(data)
        self._left -= len(data)
        if not self._left or not data:
            self._compare()
        return data

    def _compare(self) -> None:
        if self._left or self._hasher.hexdigest() != self._sha256:
            raise InputChanged(self._path)


def _open(path: str) -> IO[bytes]:
    try:
        # Not through a link, nor waiting for a pipe's other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _trouble(path, error) from error
    return os.fdopen(descriptor, "rb")


def _describe(root: Path, digests: Digests, barred: Collection[Path]) -> dict[str, str]:
    described = {}
    for name, path, status in entries(root, barred):
        try:
            described[fingerprint.name(name)] = fingerprint.describe(path, status, digests.of)
        except OSError as error:
            raise _trouble(path, error) from error
    return described


def _walk(
    directory: str,
    prefix: str,
    rules: Rules,
    above: tuple[bool, ...],
    barred: set[tuple[int, int]],
) -> Iterator[Entry]:
    try:
        with os.scandir(directory) as listing:
            found = sorted(
                (item.name, item.path, item.stat(follow_symlinks=False)) for item in listing
            )
    except OSError as error:
        raise _trouble(error.filename or directory, error) from error
    for short, path, status in found:
        name = prefix + short
        if name == _OURS:
            continue
        ignored, matches = rules.judge(name, above)
        if stat.S_ISDIR(status.st_mode):
            if ignored and not rules.exceptions:
                continue
            if not ignored and (status.st_dev, status.st_ino) in barred:
                raise SpecError(
                    [f"{path}: a build context cannot hold what fcbuild itself writes"],
                    hint="name it in .dockerignore, or move it out of the image's directory",
                )
            inner = _walk(path, f"{name}/", rules, matches, barred)
            if ignored:
                # The engine keeps an ignored directory for the sake of what is kept in it.
                first = next(inner, None)
                if first is None:
                    continue
                yield name, path, status
                yield first
            else:
                yield name, path, status
            yield from inner
        elif not ignored:
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
                raise SpecError(
                    [f"{path}: neither a file, a link nor a directory"],
                    hint="remove it, or name it in .dockerignore",
                )
            yield name, path, status


def _rules(root: Path) -> Rules:
    for file in IGNORE_FILES:
        path = root / file
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _trouble(os.fspath(path), error) from error
        try:
            return Rules(text)
        except ValueError as error:
            raise SpecError([f"{path}: {error}"]) from error
    return Rules("")


def _identities(directories: Collection[Path]) -> Iterator[tuple[int, int]]:
    for directory in directories:
        if directory.is_dir():
            status = directory.stat()
            yield status.st_dev, status.st_ino


def _trouble(path: str, error: OSError) -> InputChanged | SpecError:
    """Return the error for a file that was there a moment ago, or that cannot be read."""
    import errno

    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}:
        return InputChanged(path)
    return SpecError(
        [f"{path}: cannot be read: {error.strerror}"],
        hint="make it readable, remove it, or name it in .dockerignore",
    )
