"""Documents of records, as section 2 of guest/BOOT_CONTRACT.md has them: a header line, records of
a key and a value with its length, an end record. Pure; what a key means is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable

Record = tuple[str, bytes]


def document(header: str, records: Iterable[Record]) -> bytes:
    """Return the document, e.g. "fcbuild-boot 2\\nargv 3\\n/go\\nend 0\\n\\n"."""
    parts = [_record(key, value) for key, value in records]
    return b"".join([header.encode(), b"\n", *parts, _record("end", b"")])


def _record(key: str, value: bytes) -> bytes:
    return b"%s %d\n%s\n" % (key.encode(), len(value), value)
