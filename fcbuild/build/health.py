"""HEALTHCHECK: from what the image says, in the engine's own terms, to what PID 1 runs.

Engines that store images in the OCI format drop HEALTHCHECK; a label carries it there. It holds
the same JSON object under the same names, its times in nanoseconds or as "1m30s".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fcbuild.errors import BuildError, did_you_mean

LABEL = "fcbuild.healthcheck"

MAX_MS = 2147483647  # of the boot contract
MAX_RETRIES = 1000  # likewise

SHELL = ("/bin/sh", "-c")  # the engine's, where the image names no other

# The engine's defaults, in ms, where a value is 0 or missing.
_TIMES = {"Interval": 30_000, "Timeout": 30_000, "StartPeriod": 0, "StartInterval": 5_000}
_RETRIES = 3
_KEYS = {"Test", *_TIMES, "Retries"}

_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_NS["h"] = 60 * _NS["m"]
_PART = r"([0-9]{1,12})(?:\.([0-9]{1,9}))?(ns|us|µs|ms|s|m|h)"


@dataclass(frozen=True, kw_only=True)
class Health:
    """The check and its arguments; times in ms. retries: failures in a row that count."""

    argv: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int

    @property
    def verdict(self) -> int:
        """The longest that it may take until the first verdict, in ms."""
        return self.start_period + self.retries * (self.interval + self.timeout)

    def records(self) -> Iterator[tuple[str, str]]:
        """Yield the records of the boot contract, key and value."""
        yield from (("health", value) for value in self.argv)
        yield "health-interval-ms", str(self.interval)
        yield "health-timeout-ms", str(self.timeout)
        yield "health-start-period-ms", str(self.start_period)
        yield "health-start-interval-ms", str(self.start_interval)
        yield "health-retries", str(self.retries)


def read(
    config: Mapping[str, Any] | None,
    labels: Mapping[str, str],
    shell: tuple[str, ...],
    where: str,
) -> Health | None:
    """Return the image's health check, or None when it has none. The label goes first.

    shell: the image's SHELL, () where it has none. Raises BuildError for what cannot be one.
    """
    if LABEL in labels:
        try:
            config = json.loads(labels[LABEL])
        except (ValueError, RecursionError) as error:
            raise _malformed(where, f"LABEL {LABEL} is not JSON: {error}") from error
        if not isinstance(config, dict):
            raise _malformed(where, f"LABEL {LABEL} is not a JSON object")
        for key in sorted(config.keys() - _KEYS):
            raise _malformed(where, f"{key!r} is unknown{did_you_mean(key, _KEYS)}")
    if config is None:
        return None
    argv = _argv(config.get("Test"), shell or SHELL, where)
    if not argv:
        return None
    times = {key: _ms(key, config.get(key), where) or default for key, default in _TIMES.items()}
    retries = config.get("Retries") or _RETRIES
    if type(retries) is not int or not 1 <= retries <= MAX_RETRIES:
        raise _malformed(where, f"Retries is {retries!r}, not a number from 1 to {MAX_RETRIES}")
    return Health(
        argv=argv,
        interval=times["Interval"],
        timeout=times["Timeout"],
        start_period=times["StartPeriod"],
        start_interval=times["StartInterval"],
        retries=retries,
    )


def _argv(test: Any, shell: tuple[str, ...], where: str) -> tuple[str, ...]:
    if test is None:
        return ()
    if not isinstance(test, list) or not all(isinstance(w, str) and "\0" not in w for w in test):
        raise _malformed(where, f"Test is {test!r}, not a list of strings")
    form, *words = test or ["NONE"]
    if form == "NONE" and not words:
        return ()
    if form == "CMD" and words and words[0]:
        return tuple(words)
    if form == "CMD-SHELL" and len(words) == 1:
        return (*shell, *words)
    raise _malformed(where, f'Test is {test!r}, none of ["NONE"], ["CMD", ...], ["CMD-SHELL", ...]')


def _ms(key: str, value: Any, where: str) -> int:
    """Return a time in whole ms, a part of one taken for a whole; 0 when nothing is said."""
    if isinstance(value, str):
        if not re.fullmatch(rf"({_PART})+|0", value):
            raise _malformed(where, f'{key} is {value!r}, not a time like "1m30s"')
        value = sum(
            int(whole) * _NS[unit] + int((part or "0").ljust(9, "0")) * _NS[unit] // 10**9
            for whole, part, unit in re.findall(_PART, value)
        )
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise _malformed(where, f"{key} is {value!r}, not a time in nanoseconds")
    ms: int = -(-value // 10**6)
    if ms > MAX_MS:
        raise _malformed(where, f"{key} is {ms} ms; the boot contract allows {MAX_MS}")
    return ms


def _malformed(where: str, what: str) -> BuildError:
    return BuildError(
        f"{where}: the health check cannot be used: {what}",
        hint=f"HEALTHCHECK, or the object that LABEL {LABEL} holds, is as the engine writes it: "
        '{"Test": ["CMD", "/check"], "Interval": "30s"}',
    )
