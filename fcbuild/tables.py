"""Read TOML strictly: every value has a type, every key is known, every problem is kept.

A problem names file, key path and what was expected; the caller reports all of them together.
Sizes are written with a unit ("128MiB") and become bytes; times ("60s") become milliseconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fcbuild.errors import did_you_mean

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_MAX_BYTES = 4 * MIB  # of a file
_SIZE = r"(\d{1,9})(KiB|MiB|GiB)"
_TIME = r"(\d{1,6})(ms|s|min)"
_UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "ms": 1, "s": 1000, "min": 60_000}

T = TypeVar("T")
Pattern = str | re.Pattern[str]  # text is compiled when there is something to match


@dataclass(eq=False, repr=False)
class Table:
    """A TOML table that is being read: remembers where it is, collects problems.

    secret: keys whose values no problem may show, here and in the tables below.
    """

    values: dict[str, Any]
    where: str
    problems: list[str]
    prefix: str = ""
    known: set[str] = field(default_factory=set)
    secret: frozenset[str] = frozenset()

    def problem(self, key: str, expected: str, got: object) -> None:
        shown = f"another {type(got).__name__}" if key in self.secret else repr(got)
        self.problems.append(f"{self.where}: {self.prefix}{key}: expected {expected}, got {shown}")

    def get(self, key: str, expected: str, default: T, read: Callable[[Any], T | None]) -> T:
        """Read a key with `read`, which returns None for a value that is not as expected."""
        self.known.add(key)
        if key not in self.values:
            return default
        value = read(self.values[key])
        if value is None:
            self.problem(key, expected, self.values[key])
            return default
        return value

    def require(self, key: str) -> None:
        if key not in self.values:
            self.problems.append(f"{self.where}: {self.prefix}{key} is missing")

    def string(self, key: str, default: str = "", pattern: Pattern | None = None) -> str:
        """Read a string; pattern: a regular expression for all of it."""
        like = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
        expected = "a string" if like is None else f"a string like {like}"
        return self.get(key, expected, default, lambda v: _string(v, pattern))

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        return self.get(
            key,
            f"a whole number from {low} to {high}",
            default,
            lambda v: v if type(v) is int and low <= v <= high else None,
        )

    def size(self, key: str, default: int) -> int:
        return self.get(key, 'a size like "256MiB"', default, size)

    def time(self, key: str, default: int) -> int:
        return self.get(key, 'a time like "60s"', default, lambda v: _quantity(v, _TIME))

    def strings(self, key: str) -> tuple[str, ...]:
        def read(value: Any) -> tuple[str, ...] | None:
            ok = isinstance(value, list) and all(_string(item, None) is not None for item in value)
            return tuple(value) if ok else None

        return self.get(key, "a list of strings", (), read)

    def one_or_more(self, key: str) -> tuple[str, ...]:
        """Read a list of strings, or the one string that stands for a list of one."""
        if isinstance(self.values.get(key), str):
            return (self.string(key),)
        return self.strings(key)

    def boolean(self, key: str) -> bool:
        return self.get(key, "true or false", False, lambda v: v if isinstance(v, bool) else None)

    def string_map(self, key: str) -> dict[str, str]:
        def read(value: Any) -> dict[str, str] | None:
            ok = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
            return dict(value) if ok else None

        empty: dict[str, str] = {}
        return self.get(key, "a table of strings", empty, read)

    def table(self, key: str) -> Table:
        empty: dict[str, Any] = {}
        values = self.get(key, "a table", empty, lambda v: v if isinstance(v, dict) else None)
        return self._below(values, key)

    def tables(self, key: str) -> list[Table]:
        def read(value: Any) -> list[dict[str, Any]] | None:
            ok = isinstance(value, list) and all(isinstance(item, dict) for item in value)
            return value if ok else None

        none: list[dict[str, Any]] = []
        values = self.get(key, f"[[{key}]] tables", none, read)
        return [
            self._below(value, f"{key}[{number}]") for number, value in enumerate(values, start=1)
        ]

    def _below(self, values: dict[str, Any], name: str) -> Table:
        prefix = f"{self.prefix}{name}."
        return Table(values, self.where, self.problems, prefix, secret=self.secret)

    def finish(self) -> None:
        """Report the keys that nobody read."""
        for key in sorted(set(self.values) - self.known):
            near = did_you_mean(key, self.known)
            known = "" if near else f"; known: {', '.join(sorted(self.known))}"
            self.problems.append(f"{self.where}: {self.prefix}{key}: unknown key{near}{known}")


def read(path: Path, where: str, problems: list[str]) -> Table:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            problems.append(f"{where}: larger than {_MAX_BYTES // MIB} MiB")
            text = b""
        values = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{where}: not valid TOML: {error}")
        values = {}
    except RecursionError:
        problems.append(f"{where}: not valid TOML: nested too deeply")
        values = {}
    except OSError as error:
        problems.append(f"{where}: cannot be read: {error.strerror}")
        values = {}
    return Table(values, where, problems)


def size(value: Any) -> int | None:
    """Return the bytes of a size as it is written, or None for anything else."""
    return _quantity(value, _SIZE)


def _string(value: Any, pattern: Pattern | None) -> str | None:
    # A NUL cannot be part of an argument, a path or an environment variable.
    if not isinstance(value, str) or "\0" in value:
        return None
    return value if pattern is None or re.fullmatch(pattern, value) else None


def _quantity(value: Any, form: str) -> int | None:
    match = re.fullmatch(form, value) if isinstance(value, str) else None
    return int(match[1]) * _UNITS[match[2]] if match else None
