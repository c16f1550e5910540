"""The files of a root filesystem: the engine's tar, written to ext4 while it arrives."""

from __future__ import annotations

import contextlib
import math
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from fcbuild.build.normal import Settled
from fcbuild.build.tree import Kind, Node, Tree, printable
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError
from fcbuild.ext4 import attributes, form
from fcbuild.ext4.attributes import Stored, Unfit
from fcbuild.ext4.layout import Identity
from fcbuild.ext4.writer import PIECE, Meta, TooLarge, TooManyLinks, TooSmall, Writer
from fcbuild.tables import MIB

OURS = ".fcbuild"  # the directory of the boot contract, at the root

_XATTR = "SCHILY.xattr."
_BUFFER = 1 << 20
_SHOWN = 10  # names in an error

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
_SPECIAL = {
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


class Files:
    """The files of a file system that is being written, by name.

    Whatever adds to it raises BuildError when there is no room on the disk.

    epoch: the time that no file of an image may be newer than, in seconds since 1970; None for
    files that stay as they come. untimely: the files whose time ext4 cannot hold.
    """

    def __init__(self, path: Path, identity: Identity, epoch: int | None = None) -> None:
        self._path = path
        self._file = path.open("w+b", buffering=_BUFFER)
        self._writer = Writer(self._file, identity, Meta(0o755, 0, 0, EPOCH))
        self._unfit: dict[str, list[str]] = {}
        self._settled = Settled(epoch)
        self.tree = Tree(lambda node, offset, size: self._writer.read(node.inode, offset, size))
        self.tree.nodes[""] = Node("directory", 0o755, inode=form.ROOT)
        self.untimely: list[str] = []

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What closing would still write, and fail to, is of a file that nobody wants any more.
        with contextlib.suppress(OSError):
            self._file.close()

    @property
    def content(self) -> int:
        """Bytes of the disk that the files take."""
        return self._writer.content

    def copy(self, source: IO[bytes]) -> None:
        """Take all files of the engine's tar, which may be a pipe and is read to its end.

        Raises BuildError for what cannot be carried over, and tarfile.TarError for what is no tar.
        """
        with (
            self._room(),
            tarfile.open(
                fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=PIECE
            ) as tar,
        ):
            for entry in tar:
                # Else every header of a large image stays in memory.
                tar.members = []  # type: ignore[attr-defined]
                self._copy(entry, tar)
            for node, offset, data in self._settled.late(self.tree):
                self._writer.overwrite(node.inode, offset, data)
            # What pads a tar's end may still be on its way: whoever writes it into a pipe would
            # fail if nobody took it.
            while source.read(PIECE):
                pass

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory of root's."""
        self._directory(name, Meta(mode, 0, 0, EPOCH))

    def file(self, name: str, mode: int, data: bytes) -> None:
        """Add a file of root's."""
        with self._room():
            self._regular(name, Meta(mode, 0, 0, EPOCH), len(data), _pieces(data))

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link of root's."""
        self._symlink(name, Meta(0o777, 0, 0, EPOCH), target)

    def finish(self, size: int | None, free: int) -> int:
        """Finish the file system; return its size in bytes.

        size: bytes, or None for what the files need and `free` bytes more. Raises BuildError, also
        for extended attributes that ext4 does not take.
        """
        for why, whose in self._unfit.items():
            more = f", and {len(whose) - _SHOWN} more" if len(whose) > _SHOWN else ""
            raise BuildError(
                f"{why}: {', '.join(whose[:_SHOWN])}{more}",
                hint="remove them in the Dockerfile (setfattr -x NAME FILE)",
            )
        try:
            with self._room():
                return self._writer.finish(size=size, free=free)
        except TooSmall as error:
            raise BuildError(
                f"the root filesystem has {(size or 0) // MIB} MiB and needs "
                f"{-(-error.needed // MIB)} MiB for its files alone",
                hint='size in [rootfs] of image.toml: raise it, or leave it out for "auto"',
            ) from error
        except TooLarge as error:
            raise BuildError("a root filesystem has 512 GiB at most") from error

    def _copy(self, entry: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        name = _name(entry.name)
        shown = printable(f"/{name}")
        if name == OURS or name.startswith(f"{OURS}/"):
            raise BuildError(
                f"the image has a file {shown}: /{OURS} belongs to the boot contract",
                hint="choose another directory in the Dockerfile",
            )
        seconds = self._settled.time(name, math.floor(entry.mtime))
        if entry.type == tarfile.LNKTYPE:
            # All that is said of it besides was said of the file, which came before.
            target = _name(entry.linkname)
            self._settled.link(name, target)
            self._link(name, target)
            return
        if entry.type not in _KINDS:
            raise BuildError(f"{shown} is of a kind (tar's {entry.type!r}) that cannot be packed")
        mtime = min(max(seconds, form.OLDEST), form.NEWEST)
        if mtime != seconds:
            self.untimely.append(shown)
        meta = Meta(entry.mode & 0o7777, entry.uid, entry.gid, mtime, self._xattrs(shown, entry))
        match _KINDS[entry.type]:
            case "directory":
                self._directory(name, meta)
            case "link":
                self._symlink(name, meta, entry.linkname)
            case "special":
                kind, device = _SPECIAL[entry.type], (entry.devmajor, entry.devminor)
                number = self._writer.special(*self._place(name), meta, kind, device)
                self.tree.nodes[name] = Node("special", meta.mode, inode=number)
            case "file":
                data = tar.extractfile(entry)
                assert data
                if kept := self._settled.content(name, entry.size, data):
                    size, data = kept
                    self._regular(name, meta, size, _read(data, size, shown))

    def _xattrs(self, shown: str, entry: tarfile.TarInfo) -> Stored:
        found = {}
        for key, value in entry.pax_headers.items():
            if key.startswith(_XATTR):
                found[key.removeprefix(_XATTR)] = value.encode("utf-8", "surrogateescape")
            elif ".xattr." in key or ".acl." in key:
                raise BuildError(
                    f"{shown}: the engine writes an extended attribute as {printable(key)}, "
                    "which is not understood"
                )
        try:
            return attributes.encode(found)
        except Unfit as error:
            whose = self._unfit.setdefault(error.why, [])
            whose += [f"{printable(own)} of {shown}" for own in error.names]
            return attributes.encode({})

    def _directory(self, name: str, meta: Meta) -> None:
        node = self.tree.nodes.get(name)
        if node is not None and node.kind == "directory":  # the root, or one that had to be made
            self._writer.change(node.inode, meta)
            number = node.inode
        else:
            number = self._writer.directory(*self._place(name), meta)
        self.tree.nodes[name] = Node("directory", meta.mode, inode=number)

    def _regular(self, name: str, meta: Meta, size: int, data: Iterator[bytes]) -> None:
        number = self._writer.file(*self._place(name), meta, data)
        self.tree.nodes[name] = Node("file", meta.mode, inode=number, size=size)

    def _symlink(self, name: str, meta: Meta, target: str) -> None:
        data = os.fsencode(target)
        if len(data) > form.MAX_TARGET:
            raise BuildError(f"{printable(f'/{name}')}: a link to a target of {len(data)} bytes")
        number = self._writer.symlink(*self._place(name), meta, data)
        self.tree.nodes[name] = Node("link", meta.mode, target, inode=number)

    def _link(self, name: str, target: str) -> None:
        shown = f"{printable(f'/{name}')} is a hard link to {printable(f'/{target}')}"
        node = self.tree.nodes.get(target)
        if node is None:
            raise BuildError(f"{shown}, which does not come before it in the engine's tar")
        if node.kind == "directory":
            raise BuildError(f"{shown}, which is a directory")
        try:
            self._writer.link(*self._place(name), node.inode)
        except TooManyLinks as error:
            raise BuildError(f"{shown}, which has {form.MAX_LINKS} names already") from error
        self.tree.nodes[name] = node

    def _place(self, name: str) -> tuple[int, bytes]:
        """Return the directory that a new file is in, and the file's name there."""
        if name in self.tree.nodes:
            raise BuildError(f"{printable(f'/{name}')} comes twice in the engine's tar")
        parent, last = posixpath.split(name)
        data = os.fsencode(last)
        if len(data) > form.MAX_NAME:
            raise BuildError(f"{printable(f'/{name}')}: a name of {len(data)} bytes")
        node = self.tree.nodes.get(parent)
        if node is None:
            self.directory(parent)
            node = self.tree.nodes[parent]
        if node.kind != "directory":
            raise BuildError(
                f"{printable(f'/{name}')} is in {printable(f'/{parent}')}, which is no directory"
            )
        return node.inode, data

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BuildError(
                f"{self._path} cannot be written: {error.strerror}",
                hint="make room there, or set FCBUILD_STORE to a directory where there is",
            ) from error


def _read(data: IO[bytes], size: int, shown: str) -> Iterator[bytes]:
    left = size
    while left:
        piece = data.read(min(left, PIECE))
        if not piece:
            raise tarfile.ReadError(f"the archive ends in the middle of {shown}")
        left -= len(piece)
        yield piece


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


def _name(name: str) -> str:
    """Return a tar's name without what means nothing: "./etc/" is "etc"."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"the engine's tar has a file {printable(name)}, outside of the image")
    return "/".join(parts)
