"""The boot config of a built image, read back: section 2 of guest/BOOT_CONTRACT.md."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fcbuild.errors import ImageError

PATH = "/.fcbuild/boot"
VERSIONS = (1, 2)
COMMANDS = ("argv", "health")  # keys whose values together are one command

_RECORD = re.compile(rb"([a-z-]{1,31}) (0|[1-9][0-9]{0,6})\n")


@dataclass(frozen=True, kw_only=True)
class BootRecords:
    """A boot config: the values of each key, in their order."""

    version: int
    values: Mapping[str, tuple[str, ...]]


def parse(document: bytes) -> BootRecords:
    """Read a boot config. Raises ImageError for one that PID 1 would not take either."""
    header = re.match(rb"fcbuild-boot ([0-9]{1,9})\n", document)
    if header is None or int(header[1]) not in VERSIONS:
        raise ImageError(f"{PATH} is no boot config of version {VERSIONS[0]} or {VERSIONS[-1]}")
    values: dict[str, tuple[str, ...]] = {}
    at = header.end()
    while record := _RECORD.match(document, at):
        key, start = record[1].decode(), record.end()
        at = start + int(record[2]) + 1
        if document[at - 1 : at] != b"\n":
            break
        if key == "end" and at == len(document):
            return BootRecords(version=int(header[1]), values=values)
        value = document[start : at - 1].decode("utf-8", "surrogateescape")
        values[key] = (*values.get(key, ()), value)
    raise ImageError(f"{PATH} is damaged at byte {at}")


def readable(records: BootRecords) -> Iterator[tuple[str, str]]:
    """Yield labels and values for people: commands as a shell takes them, times with their unit."""
    for key, values in records.values.items():
        if key in COMMANDS:
            yield key, shlex.join(values)
        elif key == "env":
            yield from ((key, value) for value in values)
        elif key.endswith("-ms"):
            yield key.removesuffix("-ms"), f"{int(values[0]) / 1000:g} s"
        elif key == "stop-signal":
            yield key, f"{values[0]} ({_signal(int(values[0]))})"
        else:
            yield key, ", ".join(values) or "yes"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - 34}"
