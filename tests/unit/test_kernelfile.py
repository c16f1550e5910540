"""Kernel files that others made: told apart by their bytes, and no more believed than necessary."""

from __future__ import annotations

import gzip
import os
import struct
from hashlib import sha256
from pathlib import Path

import pytest

from fcbuild.errors import BuildError
from fcbuild.kernelfile import KernelFile, inspect

CONFIG = b"# Linux 6.12\nCONFIG_NET=y\n# CONFIG_PCI is not set\nCONFIG_FOO=m\n"
BANNER = b"Linux version 6.12.9-fc (me@here) (gcc) #1 SMP\n\0"
IKCONFIG = b"IKCFG_ST" + gzip.compress(CONFIG) + b"IKCFG_ED"


def elf(
    payload: bytes = b"",
    *,
    ident: bytes = b"\x7fELF\x02\x01\x01",
    kind: int = 2,
    machine: int = 62,
    entry: int = 0x1000000,
    segment: int = 1,
    count: int = 1,
    beyond: int = 0,
) -> bytes:
    """An ELF file with one segment, which holds the payload."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, kind, machine, 1, entry, 64, 0, 0, 64, 56, count, 0, 0, 0
    )
    size = len(payload) + beyond
    return header + struct.pack("<IIQQQQQQ", segment, 5, 120, 0, 0, size, size, 8) + payload


def image(payload: bytes = b"", *, flags: int = 0xA) -> bytes:
    """An Image for 64-bit ARM, which is an EFI program as well."""
    return struct.pack("<4s4xQQQ24x4sI", b"MZ\0\xfa", 0, 1 << 24, flags, b"ARM\x64", 64) + payload


def bzimage() -> bytes:
    head = bytearray(4096)
    head[:2] = b"MZ"
    head[0x1FE:0x206] = b"\x55\xaa\xeb\x6aHdrS"
    return bytes(head)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "arch"),
    [(elf(b"...." + BANNER + IKCONFIG), "x86_64"), (image(IKCONFIG + BANNER), "aarch64")],
)
def test_a_kernel_tells_what_it_is(tmp_path: Path, data: bytes, arch: str) -> None:
    config = {"NET": "y", "PCI": "n", "FOO": "m"}
    digest = sha256(CONFIG).hexdigest()
    assert inspect(written(tmp_path, data)) == KernelFile(arch, "6.12.9-fc", config, digest)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_kernel_may_tell_no_more_than_its_architecture(tmp_path: Path, kind: int) -> None:
    assert inspect(written(tmp_path, elf(kind=kind))) == KernelFile("x86_64", None, None, None)


def test_marks_in_a_kernels_text_are_no_configuration(tmp_path: Path) -> None:
    data = elf(b"IKCFG_ST%s\0Linux version %s (%s)\0IKCFG_ED" + IKCONFIG + BANNER)
    found = inspect(written(tmp_path, data))
    assert found.version == "6.12.9-fc" and found.config is not None


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        (b"", "no kernel: it has 0 bytes", None),
        (b"\x7fELF", "no kernel: it has 4 bytes", None),
        (elf(ident=b"\x7fELF\x01\x01\x01"), "not for 64 bits and little endian", None),
        (elf(ident=b"\x7fELF\x02\x02\x01"), "not for 64 bits and little endian", None),
        (elf(machine=183), "an ELF file for 64-bit ARM", "arch/arm64/boot/Image"),
        (elf(machine=243), "for another processor (e_machine 243)", None),
        (elf(kind=1), "a module or an object file", None),
        (elf(entry=0x2340), "no kernel: it starts at 0x2340", None),
        (elf(segment=4), "nothing to load", None),
        (elf(count=0), "nothing to load", None),
        (elf(count=2), "cut short: its program headers", None),
        (elf(count=65535), "cut short: its program headers", None),
        (elf(b"abc", beyond=1), "cut short: 123 bytes, 124 wanted", None),
        (elf(beyond=2**63), "cut short: ", None),
        (image(flags=1), "big-endian", None),
        (bzimage(), "vmlinux is a bzImage", "scripts/extract-vmlinux"),
        (gzip.compress(image(os.urandom(99))), "compressed (gzip)", "unpack it first"),
        (b"\xfd7zXZ\0" + bytes(99), "compressed (xz)", "unpack it first"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed (zstd)", "unpack it first"),
        (b"MZ\0\0zimg" + bytes(99), "compressed (EFI zboot)", "unpack it first"),
        (b"<!DOCTYPE html>" + bytes(99), "no kernel: it starts with b'<!DOCTYP'", "vmlinux"),
    ],
)
def test_what_is_no_kernel_is_named(
    tmp_path: Path, data: bytes, said: str, hint: str | None
) -> None:
    with pytest.raises(BuildError) as caught:
        inspect(written(tmp_path, data))
    assert said in caught.value.message
    assert (hint or "") in str(caught.value.hint)


PACKED = gzip.compress(CONFIG)


@pytest.mark.parametrize(
    "stored",
    [
        PACKED[:-1],
        PACKED[:-4] + b"....",
        PACKED[:20] + bytes(40),
        PACKED + b"IKCFG",
        gzip.compress(bytes(5 << 20)) + b"IKCFG_ED",  # 5 KB that become 5 MB
        gzip.compress(os.urandom(2 << 20), 0) + b"IKCFG_ED",
    ],
    ids=["short", "checksum", "spoiled", "no end", "bomb", "large"],
)
def test_a_damaged_configuration_is_refused(tmp_path: Path, stored: bytes) -> None:
    with pytest.raises(BuildError, match=r"its configuration \(IKCONFIG\) is damaged"):
        inspect(written(tmp_path, elf(b"IKCFG_ST" + stored)))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(BuildError, match=r"not a regular file|cannot be read"):
            inspect(path)
