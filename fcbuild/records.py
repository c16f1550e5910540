"""Documents of records, as section 2 of guest/BOOT_CONTRACT.md has them: a header line, records of
a key and a value with its length, an end record. Pure; what a key means is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Record = tuple[str, bytes]

_HEAD = re.compile(rb"([a-z-]{1,31}) (0|[1-9][0-9]{0,8})\n")


def document(header: str, records: Iterable[Record]) -> bytes:
    """Return the document, e.g. "fcbuild-boot 2\\nargv 3\\n/go\\nend 0\\n\\n"."""
    parts = [_record(key, value) for key, value in records]
    return b"".join([header.encode(), b"\n", *parts, _record("end", b"")])


def parse(document: bytes) -> tuple[str, list[Record]]:
    """Return the header line and the records. Raises ValueError with the byte at which it is none:
    nothing may be missing, and nothing may follow the end record."""
    line, newline, _ = document.partition(b"\n")
    at = len(line) + len(newline)
    records: list[Record] = []
    while head := _HEAD.match(document, at):
        start, length = head.end(), int(head[2])
        value, at = document[start : start + length], start + length + 1
        if document[at - 1 : at] != b"\n":
            break
        if head[1] == b"end":
            if value or at != len(document):
                break
            return line.decode("ascii", "replace"), records
        records.append((head[1].decode(), value))
    raise ValueError(f"damaged at byte {min(at, len(document))}")


def _record(key: str, value: bytes) -> bytes:
    return b"%s %d\n%s\n" % (key.encode(), len(value), value)
