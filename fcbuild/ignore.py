"""The rules of .dockerignore, as BuildKit has them. Pure: it judges names and reads no directory.

A rule is one of Go's path patterns with `**` besides, a leading `!` takes back what earlier rules
left out, and the last rule that matches counts. What matches a directory matches all below it, so a
directory's result is handed on to what it holds.
(moby's patternmatcher; https://docs.docker.com/build/concepts/context/#dockerignore-files)
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Callable, Sequence

Matches = Callable[[str], bool]

_NO_RULES: tuple[bool, ...] = ()


class Rules:
    """The rules of one file, in order. Raises ValueError with the line of one that is none."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, Matches]] = []  # whether it takes back, and what it matches
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
            pattern = line.strip()
            if line.startswith("#") or not pattern:
                continue
            back = pattern.startswith("!")
            pattern = _clean(pattern[1:].strip() if back else pattern)
            if not pattern or not _well_formed(pattern):
                raise ValueError(f"line {number}: no pattern: {line.strip()!r}")
            try:
                self._rules.append((back, _matcher(pattern)))
            except re.error as error:
                raise ValueError(f"line {number}: {line.strip()!r}: {error}") from error
        # Whether something below an ignored directory may be kept.
        self.exceptions = any(back for back, _ in self._rules)

    def judge(self, name: str, above: Sequence[bool] = _NO_RULES) -> tuple[bool, tuple[bool, ...]]:
        """Return whether a name is ignored, and for each rule whether it matches.

        name: relative to the context's root. above: what this returned for the directory that the
        name is in; nothing for the root.
        """
        ignored = False
        matches = []
        for number, (back, matcher) in enumerate(self._rules):
            match = bool(above and above[number]) or matcher(name)
            matches.append(match)
            if match:
                ignored = not back
        return ignored, tuple(matches)


def _clean(pattern: str) -> str:
    """Return a pattern without what means nothing in a path; absolute ones begin at the root."""
    if not pattern:
        return pattern
    cleaned = posixpath.normpath(pattern)
    return cleaned.lstrip("/") or "/"


def _well_formed(pattern: str) -> bool:
    """Return whether Go's path.Match takes a pattern for one."""
    at, end = 0, len(pattern)

    def character() -> bool:
        """Step over one character of a [class]; it may be escaped, and something has to follow."""
        nonlocal at
        if at >= end or pattern[at] in "-]":
            return False
        at += 2 if pattern[at] == "\\" else 1
        return at < end

    while at < end:
        if pattern[at] == "\\":
            at += 2
            if at > end:
                return False
        elif pattern[at] == "[":
            at += 2 if pattern[at + 1 : at + 2] == "^" else 1
            if not character():
                return False
            while pattern[at] != "]":
                if pattern[at] == "-":
                    at += 1
                if not character():
                    return False
            at += 1
        else:
            at += 1
    return True


def _matcher(pattern: str) -> Matches:
    if not re.search(r"[*?\[\]\\]", pattern):
        return pattern.__eq__
    if re.fullmatch(r"\*\*[^/*?\[\]\\][^*?\[\]\\]*", pattern):
        ending = pattern[2:]
        return lambda name: name.endswith(ending)  # "**x" is any ending, not the name "x"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "[[" is an odd class, here as in Go
        compiled = re.compile(_regex(pattern))
    return lambda name: compiled.fullmatch(name) is not None


def _regex(pattern: str) -> str:
    parts, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("**/", at) else 2
            parts.append("(?:.*/)?" if at < len(pattern) else "(?s:.*)")
            continue
        character = pattern[at]
        if character == "*":
            parts.append("[^/]*")
        elif character == "?":
            parts.append("[^/]")
        elif character == "\\":
            at += 1
            parts.append(re.escape(pattern[at]))
        elif character in "[]^":
            parts.append(character)
        elif character == "-":
            parts.append(character)  # a range, inside of a class
        else:
            parts.append(re.escape(character))
        at += 1
    return "".join(parts)
