"""The boot config of a built image, read back: section 2 of guest/BOOT_CONTRACT.md."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fcbuild import records
from fcbuild.errors import ImageError

PATH = "/.fcbuild/boot"
HEADERS = {"fcbuild-boot 1": 1, "fcbuild-boot 2": 2}
COMMANDS = ("argv", "health")  # keys whose values together are one command


@dataclass(frozen=True, kw_only=True)
class BootRecords:
    """A boot config: the values of each key, in their order."""

    version: int
    values: Mapping[str, tuple[str, ...]]


def parse(document: bytes) -> BootRecords:
    """Read a boot config. Raises ImageError for one that PID 1 would not take either."""
    try:
        header, found = records.parse(document)
    except ValueError as error:
        raise ImageError(f"{PATH}: {error}") from error
    if header not in HEADERS:
        raise ImageError(f"{PATH}: {header[:80]!r} is no boot config of a version known here")
    values: dict[str, tuple[str, ...]] = {}
    for key, value in found:
        values[key] = (*values.get(key, ()), value.decode("utf-8", "surrogateescape"))
    return BootRecords(version=HEADERS[header], values=values)


def readable(boot: BootRecords) -> Iterator[tuple[str, str]]:
    """Yield labels and values for people: commands as a shell takes them, times with their unit."""
    for key, values in boot.values.items():
        if key in COMMANDS:
            yield key, shlex.join(values)
        elif key == "env":
            yield from ((key, value) for value in values)
        elif key.endswith("-ms") and values[0].isdecimal():
            yield key.removesuffix("-ms"), f"{int(values[0]) / 1000:g} s"
        elif key == "stop-signal" and values[0].isdecimal():
            yield key, f"{values[0]} ({_signal(int(values[0]))})"
        else:
            yield key, ", ".join(values) or "yes"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - 34}"
