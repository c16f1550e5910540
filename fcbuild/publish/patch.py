"""Patches: a disk as the difference from another one, in pieces, whatever their size.

A patch is a row of records, one for each SEGMENT of the new file, the last of which is shorter:

    u64  where in the base the reference begins     u32  its length     u32  the frame's length
    one zstd frame, whose prefix is the reference

little-endian. The reference is what the base has around the segment's place, moved by how far its
blocks have moved: a file system writes its blocks one after the other, so a file that has grown
moves everything behind it. Memory is a few times a segment and its surroundings.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from statistics import median_low
from typing import IO

from fcbuild import progress
from fcbuild.errors import ArtifactError
from fcbuild.publish import zstd
from fcbuild.publish.pack import Sparse

SEGMENT = 8 << 20
REACH = 8 << 20  # of the reference to both sides

_RECORD = struct.Struct("<QII")
_MAX_REFERENCE = SEGMENT + 2 * REACH
_MAX_FRAME = SEGMENT + (1 << 20)
_WINDOW = 25  # log2: reference and segment are within it
_BLOCK = 4096
_SAMPLED = 15  # one of so many blocks, and one more, is remembered, by its own bits


def diff(base: Path, new: Path, to: Path) -> int:
    """Write the patch that makes `new` of `base`; return its size in bytes."""
    with base.open("rb") as old, new.open("rb") as reading, to.open("wb") as writing:
        places, moved, at = _places(old), 0, 0
        end = os.fstat(old.fileno()).st_size
        meter = progress.Meter(os.fstat(reading.fileno()).st_size)
        while segment := reading.read(SEGMENT):
            moved = _moved(segment, at, places, moved)
            start, reference = _reference(old, end, at + moved, segment)
            compressor = _compressor(reference, len(segment))
            frame = compressor.compress(segment) + compressor.flush()
            writing.write(_RECORD.pack(start, len(reference), len(frame)))
            writing.write(frame)
            at += len(segment)
            meter.add(len(segment))
        return writing.tell()


def apply(base: Path, patch: Path, to: Path, *, digest: str, size: int) -> None:
    """Make a new file of a base and a patch. digest, size: sha256 and bytes of what has to come.

    Raises ArtifactError, and leaves nothing then: a patch is a stranger's.
    """
    try:
        with base.open("rb") as old, patch.open("rb") as reading, to.open("wb") as writing:
            sparse = Sparse(writing.fileno(), size)
            end = os.fstat(old.fileno()).st_size
            while head := reading.read(_RECORD.size):
                if len(head) < _RECORD.size:
                    raise ArtifactError("it ends within a record")
                start, length, frame_length = _RECORD.unpack(head)
                if length > _MAX_REFERENCE or start + length > end or frame_length > _MAX_FRAME:
                    raise ArtifactError("a record refers to what is not there")
                frame = reading.read(frame_length)
                decompressor = _decompressor(_at(old, start, length))
                # One byte more than allowed shows what is too large.
                sparse.write(_segment(decompressor, frame))
            sparse.finish(digest, to.name)
    except (ArtifactError, zstd.ZstdError) as error:
        to.unlink()
        why = error.message if isinstance(error, ArtifactError) else str(error)
        raise ArtifactError(f"the patch for {to.name} does not fit: {why}") from error


def _segment(decompressor: zstd.ZstdDecompressor, frame: bytes) -> bytes:
    found = decompressor.decompress(frame, SEGMENT + 1)
    if len(found) > SEGMENT or not decompressor.eof or decompressor.unused_data:
        raise ArtifactError("a record is not one segment")
    return found


def _compressor(reference: bytes, size: int) -> zstd.ZstdCompressor:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: 3,
        zstd.CompressionParameter.window_log: _WINDOW,
        # What lets it see matches across all of the reference.
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    if not reference:
        return zstd.ZstdCompressor(options=options)
    prefix = zstd.ZstdDict(reference, is_raw=True).as_prefix
    made = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    made.set_pledged_input_size(size)
    return made


def _decompressor(reference: bytes) -> zstd.ZstdDecompressor:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW}
    if not reference:
        return zstd.ZstdDecompressor(options=options)
    prefix = zstd.ZstdDict(reference, is_raw=True).as_prefix
    return zstd.ZstdDecompressor(options=options, zstd_dict=prefix)


def _reference(old: IO[bytes], end: int, place: int, segment: bytes) -> tuple[int, bytes]:
    """Return what a segment is compared with, and where that begins: what stands in its place,
    where that is the same, or else what stands around it. end: of the base."""
    if place >= 0 and (same := _at(old, place, len(segment))) == segment:
        return place, same
    start = min(max(place - REACH, 0), end)
    return start, _at(old, start, max(place + len(segment) + REACH - start, 0))


def _at(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _places(file: IO[bytes]) -> dict[int, int]:
    """Return where some of a file's blocks are, by their checksum. Which of them follows from their
    bytes, so the same ones are remembered wherever they stand."""
    found: dict[int, int] = {}
    at = 0
    while chunk := file.read(1 << 20):
        for start, checksum in _checksums(chunk):
            found.setdefault(checksum, at + start)
        at += len(chunk)
    return found


def _moved(segment: bytes, at: int, places: dict[int, int], before: int) -> int:
    """Return how far the base's blocks are from where the segment has them. before: how far they
    were for the last one, which holds where nothing is known."""
    known = [
        places[checksum] - at - start
        for start, checksum in _checksums(segment)
        if checksum in places
    ]
    return median_low(known) if known else before


def _checksums(chunk: bytes) -> list[tuple[int, int]]:
    view = memoryview(chunk)
    sums = ((at, zlib.crc32(view[at : at + _BLOCK])) for at in range(0, len(chunk), _BLOCK))
    return [(at, checksum) for at, checksum in sums if not checksum & _SAMPLED]
