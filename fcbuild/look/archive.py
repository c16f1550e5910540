"""Read a root filesystem's tar, as a base is kept, the way an ext4 image is read."""

from __future__ import annotations

import hashlib
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fcbuild.errors import ImageError
from fcbuild.look.entry import Entry, Space, order

_PIECE = 1 << 20
_XATTR = "SCHILY.xattr."
_TYPES = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


class TarReader:
    """Reads one tar. An inode's number is the place of its first name in the tar."""

    name = "tarfile"

    def __init__(self, tar: Path) -> None:
        self._tar = tar
        self._members: dict[str, tarfile.TarInfo] = {}
        self._entries: dict[str, Entry] = {}
        try:
            with tarfile.open(tar, "r:", encoding="utf-8", errors="surrogateescape") as archive:
                for number, member in enumerate(archive):
                    self._add(_path(member.name), number, member)
        except (OSError, tarfile.TarError) as error:
            raise ImageError(f"{tar} cannot be read: {error}") from error

    def space(self) -> Space:
        size = self._tar.stat().st_size
        return Space(size=size, free=0, inodes=len(self._entries), free_inodes=0)

    def walk(self) -> Iterator[Entry]:
        yield from sorted(self._entries.values(), key=lambda entry: order(entry.path))

    def read(self, entry: Entry) -> Iterator[bytes]:
        member = self._members[entry.path]
        with self._tar.open("rb") as file:
            file.seek(member.offset_data)
            left = member.size
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    raise ImageError(f"{self._tar} ends in the middle of {entry.path!r}")
                left -= len(piece)
                yield piece

    def digests(self) -> Mapping[str, str]:
        found = {}
        for entry in self._entries.values():
            if entry.kind == "file":
                digest = hashlib.sha256()
                for piece in self.read(entry):
                    digest.update(piece)
                found[entry.path] = digest.hexdigest()
        return found

    def _add(self, path: str, number: int, member: tarfile.TarInfo) -> None:
        if member.type == tarfile.LNKTYPE:
            first = self._entries.get(_path(member.linkname))
            if first is None:
                raise ImageError(f"{self._tar}: {path!r} is a hard link to what is not there")
            self._members[path] = self._members[first.path]
            number, member = first.inode, self._members[path]
        else:
            self._members[path] = member
        device = member.type in (tarfile.CHRTYPE, tarfile.BLKTYPE)
        self._entries[path] = Entry(
            path=path,
            mode=_TYPES.get(member.type, stat.S_IFREG) | member.mode & 0o7777,
            uid=member.uid,
            gid=member.gid,
            size=member.size,
            mtime=int(member.mtime),
            inode=number,
            links=1,
            target=member.linkname if member.issym() else "",
            device=(member.devmajor, member.devminor) if device else None,
            xattrs={
                key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
                for key, value in member.pax_headers.items()
                if key.startswith(_XATTR)
            },
        )


def _path(name: str) -> str:
    return "/" + "/".join(part for part in name.split("/") if part not in ("", "."))
