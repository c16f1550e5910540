"""Find the images that a Dockerfile builds upon.

A reference `fcbuild/NAME` (in FROM, COPY --from= or RUN --mount=from=) is the image NAME of
images/: an edge of the task graph. Before a build it is pinned to the exact image that the plan
asks for, `fcbuild/NAME:FINGERPRINT`, and a tag to the digest that the lock has for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

LOCAL = "fcbuild/"  # the namespace of our own images

# As text, and so compiled when they are used, where most Dockerfiles have no use for them.
_ESCAPE = r"(?i)\s*#\s*escape\s*=\s*([\\`])\s*$"
_SYNTAX = r"(?i)\s*#\s*syntax\s*=\s*(\S+)"
_DIRECTIVE = r"\s*#\s*[A-Za-z]+\s*="
# A word of its own: $((1<<N)) is none.
_HEREDOC = r"(?<!\S)\d*<<(-?)(['\"]?)([^\s<'\"]+)\2(?!\S)"
_VARIABLE = r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::([-+])([^}]*))?\})"
_FROM = re.compile(r"\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_ARG = re.compile(r"\s*ARG\s", re.IGNORECASE)
_ARG_VALUE = re.compile(r"\s(\w+)(?:=(\"[^\"]*\"|'[^']*'|\S*))?")
_FLAGS = re.compile(r"\s*(?:COPY|RUN)((?:\s+--\S+)*)", re.IGNORECASE)
_FLAG_FROM = re.compile(r"--from=(\S+)|--mount=\S*?\bfrom=([^,\s]+)", re.IGNORECASE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # str.splitlines knows more line ends than the engine


class Reference(NamedTuple):
    """One image that a Dockerfile names: the resolved name, and where its text stands (offsets)."""

    name: str
    start: int
    end: int

    @property
    def local(self) -> bool:
        """Whether this is an image of images/."""
        return self.name.startswith(LOCAL)

    @property
    def tagged(self) -> bool:
        """Whether what this stands for can move: an image of a registry, without a digest."""
        return not self.local and "@" not in self.name

    def line(self, text: str) -> int:
        """Return the line of the Dockerfile that the reference stands in."""
        return text.count("\n", 0, self.start) + 1


def references(text: str, build_args: Mapping[str, str]) -> list[Reference]:
    """Return the images that the Dockerfile builds upon, its own stages and scratch left out.

    The first is the one that reads it, where `# syntax=` names one.
    """
    defaults: dict[str, str] = {}  # the ARGs before the first FROM: the only ones FROM can use
    stages: set[str] = set()
    found = _frontend(text)
    seen_from = False
    for start, line in _instructions(text):
        if (word := _ARG.match(line)) and not seen_from:
            for arg in _ARG_VALUE.finditer(line, word.end() - 1):
                default = _expand((arg[2] or "").strip("'\""), defaults)
                defaults[arg[1]] = build_args.get(arg[1], default)
        elif match := _FROM.match(line):
            seen_from = True
            name = _expand(match[1], defaults)
            if name.lower() not in stages and name != "scratch":
                found.append(Reference(name, start + match.start(1), start + match.end(1)))
            if match[2]:
                stages.add(match[2].lower())
        elif flags := _FLAGS.match(line):
            for flag in _FLAG_FROM.finditer(line, flags.start(1), flags.end(1)):
                group = 1 if flag[1] else 2
                name = flag[group]
                # A number is an earlier stage by position.
                if name.lower() not in stages and not name.isdigit() and name != "scratch":
                    found.append(
                        Reference(name, start + flag.start(group), start + flag.end(group))
                    )
    return found


def line_of(text: str, instructions: Collection[str], target: str | None) -> int | None:
    """Return the line of the last of these instructions that counts for the image that is built.

    The target's stage is searched, or else the last one, and those that it is FROM. None when there
    is none: what the image says comes from its base.
    """
    stages: list[tuple[str, str, int | None]] = []  # name, FROM, line
    for start, instruction in _instructions(text):
        words = instruction.split(None, 1)
        if match := _FROM.match(instruction):
            stages.append(((match[2] or "").lower(), match[1].lower(), None))
        elif stages and words and words[0].upper() in instructions:
            name, upon, _ = stages[-1]
            stages[-1] = (name, upon, text.count("\n", 0, start) + 1)
    names = [name for name, _, _ in stages]
    at = len(stages) - 1
    if target is not None:
        wanted = target.lower()
        at = names.index(wanted) if wanted in names else int(target) if target.isdigit() else -1
    while 0 <= at < len(stages):
        _, upon, line = stages[at]
        if line is not None:
            return line
        at = names.index(upon, 0, at) if upon in names[:at] else -1
    return None


def pin(text: str, build_args: Mapping[str, str], pinned: Callable[[Reference], str | None]) -> str:
    """Return the Dockerfile with every reference as `pinned(reference)`, or as it is for None."""
    for ref in reversed(references(text, build_args)):
        if name := pinned(ref):
            text = text[: ref.start] + name + text[ref.end :]
    return text


def local_name(reference: str) -> str:
    """Return NAME of `fcbuild/NAME`, with or without `:latest`."""
    return reference.removeprefix(LOCAL).removesuffix(":latest")


def _frontend(text: str) -> list[Reference]:
    """Return the image of `# syntax=`, which is one of the directives that a Dockerfile opens with;
    the first of its kind counts."""
    offset = 0
    for line in _LINE.findall(text):
        if "#" not in line:
            break
        if match := re.match(_SYNTAX, line):
            return [Reference(match[1], offset + match.start(1), offset + match.end(1))]
        if not re.match(_DIRECTIVE, line):
            break
        offset += len(line)
    return []


def _instructions(text: str) -> Iterator[tuple[int, str]]:
    """Yield (offset, instruction), continuation lines kept in place so that offsets hold."""
    escape = "\\"
    offset = 0
    start, parts = 0, ""
    heredocs: list[tuple[str, bool]] = []
    directives = True
    for line in _LINE.findall(text):
        begin, offset = offset, offset + len(line)
        if directives:
            if "#" in line and (match := re.match(_ESCAPE, line)):
                escape = match[1]
            directives = "#" in line and bool(re.match(_DIRECTIVE, line))
        if heredocs:
            word, dashed = heredocs[0]
            if (line.lstrip("\t") if dashed else line).rstrip("\r\n") == word:
                heredocs.pop(0)
            continue
        bare = line.strip()
        if bare.startswith("#") or (not bare and parts):
            # Comments and empty lines inside a continued instruction are skipped by the engine.
            parts += " " * len(line) if parts else ""
            continue
        if not parts:
            start = begin
        stripped = line.rstrip()
        # An escaped escape continues nothing, as the engine has it.
        if stripped.endswith(escape) and not stripped.endswith(2 * escape):
            parts += stripped[:-1] + " " * (len(line) - len(stripped) + 1)
            continue
        parts += line
        if "<<" in parts and _takes_heredoc(parts):
            heredocs = [(m[3], m[1] == "-") for m in re.finditer(_HEREDOC, parts)]
        yield start, parts
        parts = ""
    if parts:
        yield start, parts


def _takes_heredoc(instruction: str) -> bool:
    return instruction.lstrip().split(None, 1)[:1] != [] and instruction.split(None, 1)[
        0
    ].upper() in {"RUN", "COPY", "ADD"}


def _expand(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        known = variables.get(match[1] or match[2], "")
        if match[3] == "-":
            return known or match[4]
        if match[3] == "+":
            return match[4] if known else ""
        return known

    return re.sub(_VARIABLE, value, text) if "$" in text else text
