"""Kconfig fragments as text: the options they set, and how two of them differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from fcbuild.errors import SpecError

_LINE = re.compile(r"(?:CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set)")
_OFF = "n"  # the value of an option that a config does not hold


class Setting(NamedTuple):
    """What a fragment sets an option to. where: FILE:LINE; text: the line."""

    value: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def option(line: str) -> tuple[str, str] | None:
    """Return the name, without CONFIG_, and the value that a line sets, or None."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return (match[3], _OFF) if match[3] else (match[1], match[2])


def options(text: str) -> dict[str, str]:
    """Return the value of each option that a fragment, or a whole config, sets: the last counts."""
    return dict(filter(None, (option(line.strip()) for line in text.splitlines())))


def settings(fragments: Mapping[str, str]) -> dict[str, Setting]:
    """Return what fragments, text by file name, set together.

    Raises SpecError with every line that is neither an option nor a comment, and with both places
    of every contradiction.
    """
    found: dict[str, Setting] = {}
    problems = []
    for name, text in fragments.items():
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip()
            where = f"{name}:{number}"
            if set_here := option(line):
                new = Setting(set_here[1], where, line)
                old = found.setdefault(set_here[0], new)
                if old.value != new.value:
                    problems.append(f"{new} contradicts {old}")
            elif line and (not line.startswith("#") or line.startswith("# CONFIG_")):
                problems.append(f"{where}: {line} (neither an option nor a comment)")
    if problems:
        raise SpecError(problems, hint='options are "CONFIG_X=y" or "# CONFIG_X is not set"')
    return found


def dropped(wanted: Mapping[str, Setting], config: Mapping[str, str]) -> list[str]:
    """Return the names of the options that a final config has otherwise than was wanted."""
    return [name for name, one in wanted.items() if config.get(name, _OFF) != one.value]


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return how options changed, a line for each."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            lines.append(f"CONFIG_{name}={new[name]} added")
        elif name not in new:
            lines.append(f"CONFIG_{name}={old[name]} removed")
        elif old[name] != new[name]:
            lines.append(f"CONFIG_{name}={old[name]} -> {new[name]}")
    return lines
