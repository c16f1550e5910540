"""A kernel file that somebody else made: what it is, by its bytes. Nothing in it is trusted.

A name proves nothing: a bzImage called vmlinux is common, and Firecracker refuses it in words that
help nobody. So the formats are told apart by the magic numbers that boot loaders look for. Where
the kernel carries its own configuration (CONFIG_IKCONFIG), that is read.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fcbuild import kconfig
from fcbuild.errors import BuildError

# elf(5): for 64 bits, little endian, version 1; types EXEC and DYN; machines.
_ELF = b"\x7fELF"
_ELF64 = b"\x7fELF\x02\x01\x01"
_EXECUTABLE = {2, 3}
_X86_64, _AARCH64 = 62, 183
_HEADER = struct.Struct("<16xHHIQQQIHHH")
_LOAD = 1
_LOWEST_ENTRY = 1 << 20  # Firecracker refuses less: below is what the firmware would have

# linux/Documentation/arch/x86/boot.rst, linux/Documentation/arch/arm64/booting.rst.
_BZIMAGE = (0x202, b"HdrS")
_IMAGE = (56, b"ARM\x64")
_IMAGE_FLAGS = 24  # bit 0: big endian
# What a compressed kernel starts with; the last is a compressed EFI program (CONFIG_EFI_ZBOOT).
_COMPRESSED = {
    "gzip": (0, b"\x1f\x8b\x08"),
    "xz": (0, b"\xfd7zXZ\0"),
    "zstd": (0, b"\x28\xb5\x2f\xfd"),
    "bzip2": (0, b"BZh"),
    "lz4": (0, b"\x02\x21\x4c\x18"),
    "LZMA": (0, b"\x5d\0\0"),
    "LZO": (0, b"\x89LZO"),
    "EFI zboot": (4, b"zimg"),
}

# linux/kernel/configs.c: the configuration, gzipped, stands between two marks.
_BEGIN, _END = b"IKCFG_ST", b"IKCFG_ED"
_GZIP = b"\x1f\x8b\x08"
_MAX_PACKED, _MAX_CONFIG = 1 << 20, 4 << 20  # bytes; a distribution's have 60,000 and 300,000

_BANNER = re.compile(rb"Linux version ([0-9]+\.[0-9]+[!-~]{0,64})[ \0]")


@dataclass(frozen=True)
class KernelFile:
    """What is known of a kernel. version: None where it has no banner. config: its options without
    CONFIG_, and config_sha256 the digest of that text; None where it does not carry it."""

    arch: str
    version: str | None
    config: Mapping[str, str] | None
    config_sha256: str | None


def inspect(path: Path) -> KernelFile:
    """Read a kernel, of any size, in place; nobody else may be writing to it meanwhile.

    Raises BuildError, with a hint where there is a way, for what is no kernel that a VMM takes.
    """
    with _mapped(path) as data:
        arch = _arch(path.name, data)
        text = _configuration(path.name, data)
        banner = _BANNER.search(data)
        version = banner[1].decode() if banner else None
    return KernelFile(
        arch=arch,
        version=version,
        config=None if text is None else kconfig.options(text.decode("utf-8", "replace")),
        config_sha256=None if text is None else sha256(text).hexdigest(),
    )


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    try:
        # A FIFO or a terminal would keep us waiting.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise BuildError(f"{path}: not a regular file")
            if about.st_size < _HEADER.size:
                raise BuildError(f"{path}: no kernel: it has {about.st_size} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror}") from error


def _has(data: mmap.mmap, magic: tuple[int, bytes]) -> bool:
    at, value = magic
    return data[at : at + len(value)] == value


def _arch(name: str, data: mmap.mmap) -> str:
    if _has(data, (0, _ELF)):
        return _elf(name, data)
    if _has(data, _BZIMAGE):  # before the others: it can be an EFI program too
        raise BuildError(
            f"{name} is a bzImage: the kernel in it is compressed",
            hint="take vmlinux from the directory the kernel was built in, or get it out with"
            " scripts/extract-vmlinux of the kernel's source",
        )
    if _has(data, _IMAGE):
        if data[_IMAGE_FLAGS] & 1:
            raise BuildError(f"{name} is a big-endian kernel for 64-bit ARM")
        return "aarch64"
    for form, magic in _COMPRESSED.items():
        if _has(data, magic):
            raise BuildError(
                f"{name} is compressed ({form})",
                hint="unpack it first; a VMM takes vmlinux on x86-64 and Image on 64-bit ARM",
            )
    raise BuildError(
        f"{name} is no kernel: it starts with {data[:8]!r}",
        hint="vmlinux (an ELF file) is wanted for x86-64, Image for 64-bit ARM",
    )


def _elf(name: str, data: mmap.mmap) -> str:
    if not _has(data, (0, _ELF64)):
        raise BuildError(f"{name} is an ELF file, but not for 64 bits and little endian")
    kind, machine, _, entry, segments, _, _, _, size, count = _HEADER.unpack_from(data)
    if machine == _AARCH64:
        raise BuildError(
            f"{name} is an ELF file for 64-bit ARM",
            hint="VMMs take Image there: arch/arm64/boot/Image of the same build",
        )
    if machine != _X86_64:
        raise BuildError(f"{name} is an ELF file for another processor (e_machine {machine})")
    if kind not in _EXECUTABLE:
        raise BuildError(f"{name} is an ELF file, but no program: a module or an object file")
    if entry < _LOWEST_ENTRY:
        raise BuildError(f"{name} is an ELF program, but no kernel: it starts at {entry:#x}")
    loaded = 0
    for number in range(count):
        at = segments + number * size
        if at + 56 > len(data):
            raise BuildError(f"{name} is cut short: its program headers are missing")
        form, offset, length = struct.unpack_from("<I4xQ16xQ", data, at)
        if form == _LOAD:
            loaded += 1
            if offset + length > len(data):
                raise BuildError(
                    f"{name} is cut short: {len(data)} bytes, {offset + length} wanted"
                )
    if not loaded:
        raise BuildError(f"{name} is an ELF file with nothing to load")
    return "x86_64"


def _configuration(name: str, data: mmap.mmap) -> bytes | None:
    """Return the text that IKCONFIG keeps, byte for byte as .config was."""
    at = data.find(_BEGIN + _GZIP)
    if at < 0:
        return None
    at += len(_BEGIN)
    unpack = zlib.decompressobj(wbits=31)  # one gzip member, its checksum included
    try:
        text = unpack.decompress(data[at : at + _MAX_PACKED], _MAX_CONFIG)
    except zlib.error as error:
        raise BuildError(f"{name}: its configuration (IKCONFIG) is damaged: {error}") from error
    if not unpack.eof or not unpack.unused_data.startswith(_END):
        raise BuildError(f"{name}: its configuration (IKCONFIG) is damaged: it has no end")
    return text
