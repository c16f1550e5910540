"""What fuzzing PID 1 begins with: documents as builder, launcher and kernel write them.

python -m tests.fuzz_seeds DIRECTORY    (DIRECTORY/seeds/TARGET, as fcbuild/guest/Makefile wants)
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from fcbuild.kernel_command_line import FIRECRACKER_X86

Records = Sequence[tuple[str, bytes]]

IMAGE: Records = [
    ("argv", b"/bin/sh"),
    ("argv", b"-c"),
    ("argv", b'echo "two words"\n'),
    ("env", b"PATH=/usr/bin:/bin"),
    ("env", b"HOSTNAME=debian-web"),
    ("env", b"A=\xff=\n"),
    ("workdir", b"/srv"),
    ("uid", b"1000"),
    ("gid", b"4294967294"),
    ("group", b"44"),
    ("group", b"0"),
    ("hostname", b"debian-web"),
    ("stop-signal", b"15"),
    ("stop-grace-ms", b"10000"),
]
MORE: Records = [
    ("handover", b""),
    ("root", b"read-only"),
    ("writable", b"/var/lib"),
    ("health", b"/bin/check"),
    ("health", b"now"),
    ("health-interval-ms", b"30000"),
    ("health-timeout-ms", b"1"),
    ("health-start-period-ms", b"0"),
    ("health-start-interval-ms", b"5000"),
    ("health-retries", b"1000"),
]
NETWORK: Records = [
    ("address", b"172.16.0.2/30"),
    ("address", b"fd00::2/64"),
    ("gateway", b"172.16.0.1"),
    ("gateway", b"fe80::1"),
    ("dns", b"::ffff:1.2.3.4"),
    ("search", b"example.org"),
    ("host", b"10.0.0.1 db db.example.org"),
    ("mtu", b"1500"),
    ("mmds", b""),
]
INSTANCE: Records = [
    ("hostname", b"web-1"),
    ("env", b"HOSTNAME=other"),
    ("arg", b"--port=80"),
    ("file", b"0600 0 4294967294 /root/.ssh/authorized_keys"),
    ("data", b"ssh-ed25519 AAAA\n"),
    ("file", b"4755 1000 1000 /srv/a b"),
    ("data", b"\0\xff\n"),
]


def document(magic: bytes, records: Iterable[tuple[str, bytes]], *, pad: int = 1) -> bytes:
    """Write records in the format of the boot contract, and zeros up to a multiple of `pad`."""
    lines = (b"%s %d\n%s\n" % (key.encode(), len(value), value) for key, value in records)
    text = magic + b" 2\n" + b"".join(lines) + b"end 0\n\n"
    return text + bytes(-len(text) % pad)


def command_line(records: Records) -> bytes:
    """Write records as words of the kernel command line, quoted as it wants them."""
    words = ((f"fcbuild.{key}=".encode(), value) for key, value in records)
    quoted = (key + (b'"%s"' % value if b" " in value else value) for key, value in words)
    ours = (word.text.encode() for word in FIRECRACKER_X86.words)
    return b" ".join([*ours, *quoted, b"root=/dev/vda rw\n"])


def elf_heads() -> Iterable[bytes]:
    """The first page of programs that are at hand, this one's among them."""
    for program in (sys.executable, "/bin/sh", "/sbin/ldconfig"):
        if Path(program).is_file():
            with Path(program).open("rb") as file:
                yield file.read(4096)


def small_elf() -> bytes:
    """An ELF header (Elf64_Ehdr), one program header (PT_INTERP), and the path it points to."""
    path = b"/lib/ld-musl-x86_64.so.1\0"
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(path)
    return header + struct.pack("<IIQQQQQQ", 3, 4, 120, 120, 120, size, size, 1) + path


def netlink(kind: int, body: bytes) -> bytes:
    """One message of the kernel's about request 1: struct nlmsghdr and its body."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


SEEDS: dict[str, Sequence[bytes]] = {
    "config": [
        document(b"fcbuild-boot", IMAGE),
        document(b"fcbuild-boot", [*IMAGE, *MORE, *NETWORK]),
        document(b"fcbuild-boot", [*IMAGE, ("dns", b"1" * 46)]),
        document(b"fcbuild-boot", [*IMAGE, *[("env", b"N%d=" % n) for n in range(200)]]),
    ],
    "instance": [
        document(b"fcbuild-instance", []),
        document(b"fcbuild-instance", [*INSTANCE, *NETWORK], pad=512),
    ],
    "command_line": [
        command_line([]),
        command_line([*INSTANCE[:3], *NETWORK, ("config", b"/dev/vdb"), ("overlay", b"/dev/vdc")]),
        b'fcbuild.env="A=b c" "fcbuild.arg=two words" fcbuild.arg="x -- fcbuild.arg=no',
    ],
    "interpreter": [
        *elf_heads(),
        small_elf(),
        b"#!/bin/sh -e\n",
        b"#! /usr/bin/env python3\n",
        b"#!\n",
    ],
    "json": [
        b"\xff" + 'plain "quoted" \\ \t ü € 😀 \x7f'.encode(),
        b"\x10\xc3\x28\xed\xa0\x80 cut",
    ],
    "requests": [b"stop\n", b"signal 15\n", b"tcp 65535\nGET / HTTP/1.1\n", b"x" * 64],
    "rtnetlink": [
        # A link's description (struct ifinfomsg, one attribute), an acknowledgement, a refusal.
        netlink(16, struct.pack("=BBHiII", 0, 0, 1, 2, 0, 0) + struct.pack("=HH8s", 9, 3, b"eth0")),
        netlink(2, struct.pack("=i", 0) + bytes(16)),
        netlink(2, struct.pack("=i", -17) + bytes(16)),
    ],
    "search": [
        b"PATH=/usr/local/bin::/bin\0sh",
        b"PATH=\0a/b",
        b"HOME=/\0",
        b"PATH=" + b"d" * 60 + b"\0two",
    ],
}


def write(directory: Path) -> None:
    """Write every target's seeds to directory/seeds/TARGET."""
    for target, seeds in SEEDS.items():
        place = directory / "seeds" / target
        place.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (place / str(number)).write_bytes(seed)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
