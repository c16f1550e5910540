"""What probably made a file different: said of the first bytes that differ, and of its name.

A hint and no more: it names the usual suspects, and what a Dockerfile can do about them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AROUND = 24  # bytes before and after the first difference that are looked at

_MAY_BE_TIME = re.compile(
    rb"\d\d:\d\d(:\d\d)?"  # of a day
    rb"|\d{4}-\d\d-\d\d|\d{1,2}/\d{1,2}/\d{2,4}|\d{8}[T_-]?\d{4}"
    rb"|(Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* "
    rb"|\b1[5-9]\d{8}(\d{3})?\b|\b2\d{9}\b"  # seconds, milliseconds since 1970
)
_GZIP, _ZIP, _ELF, _PYC = b"\x1f\x8b", b"PK\x03\x04", b"\x7fELF", b"\r\n"
_GZIP_TIME = range(4, 8)  # RFC 1952

# Names of files, and what is to be said of them; the first that fits.
_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(name, re.DOTALL), said)
    for name, said in (
        (
            r"/(etc|var/lib/dbus)/machine-id",
            "a machine's id, which every VM of this image would have: "
            "`RUN : > /etc/machine-id && ln -sf /etc/machine-id /var/lib/dbus/`",
        ),
        (
            r"/etc/ssh/ssh_host_.*_key(\.pub)?|/etc/dropbear/.*",
            "a host's key, which every VM of this image would have: remove it in the Dockerfile "
            "and have it made at boot",
        ),
        (
            r"/etc/ssl/(private|certs)/.*snakeoil.*|.*/private/.*\.key",
            "a key, which every VM of this image would have: have it made at boot",
        ),
        (
            r".*/random[-_]seed|.*/credential\.secret",
            "a secret, which every VM of this image would have: remove it in the Dockerfile",
        ),
        (
            r"/etc/shadow-?",
            "a salt of a password's hash, or the day of a password that expires: give the hash "
            "(`usermod -p`), not the password",
        ),
        (
            r"/var/lib/apt/lists/.*|/var/lib/dpkg/.*|/(usr/)?lib/apk/db/.*",
            "a package archive that has moved between the two builds: name versions",
        ),
        (
            r"/var/lib/(rpm|dnf|yum)/.*|/usr/lib/sysimage/rpm/.*",
            "a database of when packages were installed",
        ),
        (
            r"/var/cache/fontconfig/.*",
            "a cache of fonts, with times: remove it in the same RUN; fontconfig does without",
        ),
        (r".*/cacerts", "a keystore of Java's, with the time of each certificate"),
        (
            r"/root/\.(cache|npm|config)/.*|/home/[^/]*/\.cache/.*|/(var/)?tmp/.*|/var/cache/.*",
            "a cache that the build left behind: remove it in the same RUN",
        ),
        (r"/var/log/.*|.*\.log", "a log: remove it in the same RUN"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where two contents begin to differ. offset: bytes from the beginning; a, b: what is around
    it; start: the first bytes of both, which say what kind of a file it is."""

    offset: int
    a: bytes
    b: bytes
    start: bytes = b""


def cause(path: str, spot: Spot | None) -> str:
    """Return what probably made the difference, "" for no idea. spot: None where not the content
    differs."""
    for pattern, said in _KNOWN:
        if pattern.fullmatch(path):
            return said
    if spot is None:
        return ""
    if spot.start.startswith(_GZIP) and spot.offset in _GZIP_TIME:
        return "a time in gzip's header: `gzip -n`"
    if spot.start.startswith(_ZIP):
        return "a time in a zip archive"
    if path.endswith(".pyc"):
        return "Python's bytecode: compile it with a set PYTHONHASHSEED"
    if spot.start.startswith(_ELF):
        return "a program: a build id, a time or a path that went into it"
    if _MAY_BE_TIME.search(spot.a) and _MAY_BE_TIME.search(spot.b):
        return "a time: use SOURCE_DATE_EPOCH (an ARG) in its place"
    return ""
