"""The tar that a root filesystem is made from: the engine's, written anew while it arrives.

mke2fs reads it, so it holds what mke2fs can read: GNU headers, whose names are bytes of any kind
(those of a pax header have to be UTF-8), and no extended attributes, which are kept aside because
mke2fs drops all but one. Long runs of zeros become holes, here and then in the root filesystem.
"""

from __future__ import annotations

import contextlib
import math
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from fcbuild.build import ext4
from fcbuild.build.tree import Kind, Node, Tree, printable
from fcbuild.build.xattr import Xattr
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError

OURS = ".fcbuild"  # the directory of the boot contract, at the root

_CHUNK = 1 << 16  # a multiple of ext4's blocks, so that a hole here is one there
_ZEROS = bytes(_CHUNK)
_RECORD = 512  # a tar is made of these

_XATTR = "SCHILY.xattr."

_KINDS: dict[bytes, Kind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "special",
    tarfile.BLKTYPE: "special",
    tarfile.FIFOTYPE: "special",
}

# What mke2fs writes of a file's time: 32 bits with a sign, 1901 to 2038.
_OLDEST, _NEWEST = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class _Header:
    """The fields of an entry that are kept."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    major: int = 0
    minor: int = 0


class Archive:
    """A tar that is being written, and what is known about the files in it.

    Whatever adds to it raises BuildError when there is no room.

    untimely: the files whose time ext4 cannot hold.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._at = 0
        self.tree = Tree(self._read)
        self.content = ext4.Content()
        self.xattrs: list[Xattr] = []
        self.untimely: list[str] = []

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What closing would still write, and fail to, is of an archive that nobody wants any more.
        with contextlib.suppress(OSError):
            self._file.close()

    def copy(self, source: IO[bytes]) -> None:
        """Take all files of the engine's tar, which may be a pipe.

        Raises BuildError for what cannot be carried over, or when the disk is full, and
        tarfile.TarError for what is no tar.
        """
        with tarfile.open(
            fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=1 << 16
        ) as tar:
            for entry in tar:
                # Else every header of a large image stays in memory.
                tar.members = []  # type: ignore[attr-defined]
                self._copy(entry, tar.extractfile(entry) if entry.isreg() else None)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory of root's; the one that it is in has to be there."""
        self._add(name, "directory", _Header(mode), tarfile.DIRTYPE)

    def file(self, name: str, mode: int, data: bytes) -> None:
        """Add a file of root's; the directory that it is in has to be there."""
        self._add(name, "file", _Header(mode), tarfile.REGTYPE, size=len(data))
        self._write(data)
        self._pad(len(data))

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link of root's; the directory that it is in has to be there."""
        self._add(name, "link", _Header(0o777), tarfile.SYMTYPE, target=target)

    def finish(self) -> None:
        """Write the end of the archive; the files can still be read."""
        self._write(bytes(2 * _RECORD))
        with self._room():
            self._file.flush()

    def _copy(self, entry: tarfile.TarInfo, data: IO[bytes] | None) -> None:
        name = _name(entry.name)
        shown = printable(f"/{name}")
        if name == OURS or name.startswith(f"{OURS}/"):
            raise BuildError(
                f"the image has a file {shown}: /{OURS} belongs to the boot contract",
                hint="choose another directory in the Dockerfile",
            )
        if entry.type != tarfile.LNKTYPE and entry.type not in _KINDS:
            raise BuildError(f"{shown} is of a kind (tar's {entry.type!r}) that cannot be packed")
        seconds = math.floor(entry.mtime)
        mtime = min(max(seconds, _OLDEST), _NEWEST)
        if mtime != seconds:
            self.untimely.append(shown)
        header = _Header(
            entry.mode & 0o7777, entry.uid, entry.gid, mtime, entry.devmajor, entry.devminor
        )
        if entry.type == tarfile.LNKTYPE:
            # Its extended attributes are those of the file, which came before.
            self._link(name, _name(entry.linkname), header)
            return
        self._keep_xattrs(name, entry)
        kind = _KINDS[entry.type]
        form = tarfile.REGTYPE if kind == "file" else entry.type
        self._add(name, kind, header, form, size=entry.size if data else 0, target=entry.linkname)
        if data:
            self._data(data, entry.size, shown)

    def _keep_xattrs(self, name: str, entry: tarfile.TarInfo) -> None:
        before = len(self.xattrs)
        for key, value in entry.pax_headers.items():
            if key.startswith(_XATTR):
                attribute = key.removeprefix(_XATTR)
                data = value.encode("utf-8", "surrogateescape")
                self.xattrs.append(Xattr(f"/{name}", attribute, data))
            elif ".xattr." in key or ".acl." in key:
                raise BuildError(
                    f"{printable(f'/{name}')}: the engine writes an extended attribute as "
                    f"{printable(key)}, which is not understood"
                )
        if len(self.xattrs) > before:
            self.content.data += ext4.BLOCK  # a block of its own, where the inode has no room

    def _add(
        self,
        name: str,
        kind: Kind,
        header: _Header,
        form: bytes,
        *,
        size: int = 0,
        target: str = "",
    ) -> None:
        """Write a header and count the file; its bytes are the caller's to write."""
        self._header(name, header, form, size=size, target=target)
        self.tree.nodes[name] = Node(kind, header.mode, target, self._at, size)
        # A directory has a block to begin with; a link's target fits its inode, or has a block.
        long_link = kind == "link" and len(os.fsencode(target)) >= ext4.FAST_LINK
        self.content.add(ext4.BLOCK if kind == "directory" or long_link else 0, header.mtime)
        self.content.enter(name)

    def _link(self, name: str, target: str, header: _Header) -> None:
        node = self.tree.nodes.get(target)
        if node is None:
            raise BuildError(
                f"{printable(f'/{name}')} is a hard link to {printable(f'/{target}')}, "
                "which does not come before it in the engine's tar"
            )
        self._header(name, header, tarfile.LNKTYPE, size=0, target=target)
        self.tree.nodes[name] = node
        self.content.enter(name)

    def _header(self, name: str, header: _Header, form: bytes, *, size: int, target: str) -> None:
        entry = tarfile.TarInfo(name or ".")
        entry.type, entry.size, entry.linkname = form, size, target
        entry.mode, entry.uid, entry.gid = header.mode, header.uid, header.gid
        entry.mtime, entry.devmajor, entry.devminor = header.mtime, header.major, header.minor
        self._write(entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def _data(self, data: IO[bytes], size: int, shown: str) -> None:
        left = size
        while left:
            chunk = data.read(min(left, _CHUNK))
            if not chunk:
                raise tarfile.ReadError(f"the archive ends in the middle of {shown}")
            left -= len(chunk)
            if len(chunk) == _CHUNK and chunk == _ZEROS:
                with self._room():
                    self._file.seek(_CHUNK, os.SEEK_CUR)
                self._at += _CHUNK
            else:
                self._write(chunk)
                self.content.hold(len(chunk))
        self._pad(size)

    def _pad(self, size: int) -> None:
        self._write(bytes(-size % _RECORD))

    def _write(self, data: bytes) -> None:
        with self._room():
            self._file.write(data)
        self._at += len(data)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BuildError(
                f"{self._file.name} cannot be written: {error.strerror}",
                hint="make room there, or set FCBUILD_STORE to a directory where there is",
            ) from error

    def _read(self, node: Node, offset: int, size: int) -> bytes:
        left = node.size - offset
        if left <= 0 or size <= 0:
            return b""
        self._file.seek(node.offset + offset)
        data = self._file.read(min(size, left))
        self._file.seek(self._at)
        return data


def _name(name: str) -> str:
    """Return a tar's name without what means nothing: "./etc/" is "etc"."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"the engine's tar has a file {printable(name)}, outside of the image")
    return "/".join(parts)
