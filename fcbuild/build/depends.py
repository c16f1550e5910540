"""Why an option did not get into a kernel's config: what the source's Kconfig files ask for.

Kconfig itself drops such an option without a word. This reads of its language only what that takes:
where options are, under which conditions, and what selects them.
(linux/Documentation/kbuild/kconfig-language.rst)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fcbuild.errors import did_you_mean

_DEPTH = 50  # of files that name each other
_MAX_BYTES = 4 << 20  # of one
_SHOWN = 3  # conditions, of one option
_TOKEN = re.compile(r'\$\([^()]*(?:\([^()]*\)[^()]*)*\)|"[^"]*"|&&|\|\||!=|<=|>=|[=<>!()]|[\w-]+')
_WORDS = {"y": "y", "m": "m", "n": "n"}


@dataclass(frozen=True)
class _Definition:
    """One place that defines an option. conditions: all have to hold. shown: whether anybody can
    set it, which only an option with a prompt can be."""

    conditions: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kconfig:
    """All options of a source tree, for one architecture."""

    definitions: Mapping[str, list[_Definition]]
    selectors: Mapping[str, list[tuple[str, str]]]  # option -> who selects it, on what condition

    def explain(self, name: str, wanted: str, config: Mapping[str, str]) -> str:
        """Return why an option is not what was wanted, in words."""
        if name not in self.definitions:
            return f"this series has no such option{did_you_mean(name, self.definitions)}"
        if wanted == "n":
            by = [
                who
                for who, condition in self.selectors.get(name, [])
                if config.get(who, "n") != "n" and _holds(condition, config)
            ]
            if by:
                return f"selected by {', '.join(by[:_SHOWN])}"
        unmet: list[str] = []
        prompted = False
        for one in self.definitions[name]:
            missing = [part for part in one.conditions if not _holds(part, config)]
            if not missing and any(_holds(prompt, config) for prompt in one.prompts):
                return "its value is not one that the option takes, or another of a choice is set"
            prompted |= bool(one.prompts)
            hidden = [p for p in one.prompts if not _holds(p, config)]
            unmet += missing or hidden
        if unmet:
            parts = dict.fromkeys(part for text in unmet for part in _parts(text, config))
            return f"it depends on {', '.join(list(parts)[:_SHOWN])}"
        if not prompted:
            who = [who for who, _ in self.selectors.get(name, [])]
            by_whom = f": {', '.join(who[:_SHOWN])}" if who else ""
            return f"nobody can set it: it follows from what selects it{by_whom}"
        return "Kconfig has another value for it"


def read(tree: Path, source_arch: str) -> Kconfig:
    """Read the Kconfig files of a source tree. source_arch: its directory of arch/."""
    definitions: dict[str, list[_Definition]] = defaultdict(list)
    selectors: dict[str, list[tuple[str, str]]] = defaultdict(list)
    stack: list[tuple[str, list[str]]] = []  # the blocks around: keyword, conditions
    name, one = "", _Definition()
    for line in _lines(tree, "Kconfig", source_arch, _DEPTH):
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word in {"config", "menuconfig"}:
            name = rest
            one = _Definition([c for _, conditions in stack for c in conditions])
            definitions[name].append(one)
        elif word in {"if", "menu", "choice"}:
            stack.append((word, [rest] if word == "if" else []))
            name = ""
        elif word in {"endif", "endmenu", "endchoice"}:
            if stack:
                stack.pop()
            name = ""
        elif word == "comment":
            name = "-"  # its conditions are nobody's
            one = _Definition()
        elif line.startswith("depends on "):
            condition = line.removeprefix("depends on ").strip()
            if name:
                one.conditions.append(condition)
            elif stack:
                stack[-1][1].append(condition)
        elif word in {"bool", "tristate", "string", "int", "hex", "prompt"} and rest[:1] in {
            '"',
            "'",
        }:
            one.prompts.append(_after_if(rest) or "y")
        elif word == "select" and name:
            selected, _, condition = rest.partition(" if ")
            selectors[selected.strip()].append((name, condition.strip() or "y"))
    return Kconfig(definitions, selectors)


def _lines(tree: Path, name: str, source_arch: str, depth: int) -> Iterator[str]:
    """Yield the statements of a file and of those that it names, without comments and help."""
    if depth == 0:
        return
    path = tree / name.replace("$(SRCARCH)", source_arch).replace("$SRCARCH", source_arch)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_BYTES)
    except OSError:
        return
    help_at: int | None = None  # how far a help text is indented; -1: not known yet
    for raw in text.replace("\\\n", " ").splitlines():
        expanded = raw.expandtabs()
        line = expanded.strip()
        indent = len(expanded) - len(expanded.lstrip())
        if help_at is not None and line:
            if help_at == -1:
                help_at = indent or None
                if help_at:
                    continue
            elif indent >= help_at:
                continue
            else:
                help_at = None
        if not line or line.startswith("#"):
            continue
        line = re.sub(r"\s+#\s.*", "", line)
        if line in {"help", "---help---"}:
            help_at = -1
        elif match := re.fullmatch(r'source\s+"([^"]+)"', line):
            yield from _lines(tree, match[1], source_arch, depth - 1)
        else:
            yield re.sub(r"\s+", " ", line)


def _after_if(prompt: str) -> str:
    match = re.fullmatch(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')\s+if\s+(.*)""", prompt)
    return match[1] if match else ""


def _parts(condition: str, config: Mapping[str, str]) -> Iterator[str]:
    """Yield what of a condition does not hold, with the values that its options have."""
    for part in _conjuncts(condition):
        if _holds(part, config):
            continue
        names = dict.fromkeys(
            token for token in _TOKEN.findall(part) if re.fullmatch(r"[A-Z0-9_]*[A-Z]\w*", token)
        )
        values = ", ".join(f"{name}={config.get(name, 'n')}" for name in names)
        yield f"{part} ({values})" if values else part


def _conjuncts(condition: str) -> list[str]:
    """Split at the && that are in no parentheses, unless there is an || among them."""
    parts, depth, start = [], 0, 0
    for match in _TOKEN.finditer(condition):
        token = match[0]
        depth += (token == "(") - (token == ")")
        if depth == 0 and token == "||":
            return [condition]
        if depth == 0 and token == "&&":
            parts.append(condition[start : match.start()].strip())
            start = match.end()
    return [*parts, condition[start:].strip()]


def _holds(condition: str, config: Mapping[str, str]) -> bool:
    """Return whether a condition is more than n. What the toolchain is asked, $(...), counts as
    yes: what comes of that is in options of their own."""
    tokens = _TOKEN.findall(condition)
    value, rest = _or(tokens, config)
    return value != "n" or bool(rest)  # what cannot be read is not held against it


def _or(tokens: list[str], config: Mapping[str, str]) -> tuple[str, list[str]]:
    value, tokens = _and(tokens, config)
    while tokens[:1] == ["||"]:
        other, tokens = _and(tokens[1:], config)
        value = value if value != "n" else other
    return value, tokens


def _and(tokens: list[str], config: Mapping[str, str]) -> tuple[str, list[str]]:
    value, tokens = _one(tokens, config)
    while tokens[:1] == ["&&"]:
        other, tokens = _one(tokens[1:], config)
        value = "n" if "n" in (value, other) else other
    return value, tokens


def _one(tokens: list[str], config: Mapping[str, str]) -> tuple[str, list[str]]:
    if not tokens:
        return "y", []
    first, rest = tokens[0], tokens[1:]
    if first == "!":
        value, rest = _one(rest, config)
        return ("y" if value == "n" else "n"), rest
    if first == "(":
        value, rest = _or(rest, config)
        return value, rest[1:]
    left = _value(first, config)
    if rest[:1] and rest[0] in {"=", "!=", "<", ">", "<=", ">="}:
        right = _value(rest[1], config) if len(rest) > 1 else ""
        return ("y" if _compare(left, rest[0], right) else "n"), rest[2:]
    return left, rest


def _value(token: str, config: Mapping[str, str]) -> str:
    if token.startswith("$("):
        return "y"
    if token.startswith('"'):
        return token[1:-1]
    if token in _WORDS or token.isdigit():
        return token
    return config.get(token, "n").strip('"')


def _compare(left: str, sign: str, right: str) -> bool:
    if sign in {"=", "!="}:
        return (left == right) == (sign == "=")
    try:
        a, b = int(left, 0), int(right, 0)
    except ValueError:
        return True
    return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[sign]
