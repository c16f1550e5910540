"""Files on their way to a registry and back: zstd, in pieces, and compared with their digests.

A compressed file is one zstd frame without a tar around it. The same bytes give the same frame with
the same libzstd: the level is fixed, the size pledged, and there is always a worker, since with
none the output is another. Compressed digests are not to be relied upon beyond that; the digests
that count are of the plain bytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fcbuild import progress
from fcbuild.errors import ArtifactError, InputChanged
from fcbuild.publish import oci, zstd
from fcbuild.publish.oci import Descriptor

if TYPE_CHECKING:
    from fcbuild.publish.bundle import File

LEVEL = 3  # of an image of 160 MiB, the next three levels save 6 % and take five times as long
ZSTD = "+zstd"  # the suffix of a media type
_WORKERS = 4  # at most: each has a buffer of its own
_MAX_WINDOW = 26  # log2 of what a frame may have us keep in memory
_CHUNK = 1 << 20
_HOLE = 64 << 10  # bytes of zeros that are not written
_ZEROS = bytes(_HOLE)


class Blob(NamedTuple):
    """What is pushed: a descriptor, and the bytes or the file that has them."""

    descriptor: Descriptor
    source: Path | bytes


def pack(file: File, scratch: Path) -> Blob:
    """Return the blob that a file becomes: what is a file of the store is compressed into the
    directory `scratch`. Raises InputChanged for a file that has not the digest it should."""
    annotations = {oci.TITLE: file.title}
    if isinstance(file.source, bytes):
        found = oci.describe(file.media_type, file.source, annotations=annotations)
        return Blob(found, file.source)
    to = scratch / f"{file.digest}.zst"
    plain, digest, size = compress(file.source, to)
    if plain != file.digest:
        raise InputChanged(str(file.source))
    annotations[oci.PLAIN_DIGEST] = f"sha256:{plain}"
    annotations[oci.PLAIN_SIZE] = str(file.size)
    descriptor = Descriptor(file.media_type + ZSTD, f"sha256:{digest}", size, annotations)
    return Blob(descriptor, to)


def compress(source: Path, to: Path) -> tuple[str, str, int]:
    """Compress a file; return the sha256 of what was read and of what was written, and its
    size."""
    plain, packed = hashlib.sha256(), hashlib.sha256()
    with source.open("rb") as reading, to.open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        compressor = zstd.ZstdCompressor(
            options={
                zstd.CompressionParameter.compression_level: LEVEL,
                zstd.CompressionParameter.nb_workers: min(os.cpu_count() or 1, _WORKERS),
            }
        )
        compressor.set_pledged_input_size(size)
        meter = progress.Meter(size)
        left = size
        while piece := reading.read(min(_CHUNK, left)):
            left -= len(piece)
            plain.update(piece)
            out = compressor.compress(piece)
            packed.update(out)
            writing.write(out)
            meter.add(len(piece))
        if left:
            raise InputChanged(str(source))
        out = compressor.flush()
        packed.update(out)
        writing.write(out)
        return plain.hexdigest(), packed.hexdigest(), writing.tell()


def expand(source: Path, to: Path, *, digest: str, size: int) -> None:
    """Expand a compressed file into a new one, which has holes where there are zeros.

    digest, size: sha256 and bytes of what has to come; more is not written. Raises ArtifactError,
    and leaves nothing then.
    """
    limits: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW}
    decompressor = zstd.ZstdDecompressor(options=limits)
    try:
        with source.open("rb") as reading, to.open("wb") as writing:
            sparse = Sparse(writing.fileno(), size)
            while not decompressor.eof:
                piece = reading.read(_CHUNK) if decompressor.needs_input else b""
                if decompressor.needs_input and not piece:
                    raise ArtifactError(f"{to.name}: its compressed form ends too early")
                sparse.write(decompressor.decompress(piece, _CHUNK))
            if decompressor.unused_data or reading.read(1):
                raise ArtifactError(f"{to.name}: something follows its compressed form")
            sparse.finish(digest, to.name)
    except (ArtifactError, zstd.ZstdError) as error:
        to.unlink()
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{to.name}: its compressed form is damaged: {error}") from error


class Sparse:
    """A file that is written from its beginning to its end, with holes for zeros. size: the bytes
    that it has to have in the end."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._at = 0
        self._hash = hashlib.sha256()
        self._meter = progress.Meter(size)

    def write(self, piece: bytes) -> None:
        """Raises ArtifactError for more than there has to be."""
        if self._at + len(piece) > self._size:
            raise ArtifactError(f"it holds more than the {self._size} bytes that it should")
        self._hash.update(piece)
        for start in range(0, len(piece), _HOLE):
            part = piece[start : start + _HOLE]
            if part != _ZEROS[: len(part)]:
                os.pwrite(self._descriptor, part, self._at + start)
        self._at += len(piece)
        self._meter.add(len(piece))

    def finish(self, digest: str, name: str) -> None:
        """Give the file its length. Raises ArtifactError for one that is not the right one."""
        if self._at != self._size or self._hash.hexdigest() != digest:
            raise ArtifactError(
                f"{name}: other bytes than its digest says: {self._at} of {self._size}, "
                f"sha256 {self._hash.hexdigest()} instead of {digest}"
            )
        os.ftruncate(self._descriptor, self._size)
