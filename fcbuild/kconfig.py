"""Kconfig fragments as text: the options they set, and how two of them differ. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINE = re.compile(r"(?:CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set)")


def option(line: str) -> tuple[str, str] | None:
    """Return the name, without CONFIG_, and the value that a line sets, or None."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return (match[3], "n") if match[3] else (match[1], match[2])


def options(text: str) -> dict[str, str]:
    """Return the value of each option that a fragment, or a whole config, sets: the last counts."""
    return dict(filter(None, (option(line.strip()) for line in text.splitlines())))


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
