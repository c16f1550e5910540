"""The table of BOOT_CONTRACT.md, section 7: what a microVM does differently, and why.

A row's first cell names facts, the next two the engine's and the microVM's value. All are patterns
in `code`, in which * stands for anything; `absent` is a fact that there is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.facts import text

CONTRACT = Path(__file__).parents[2] / "fcbuild" / "guest" / "BOOT_CONTRACT.md"
_SECTION = re.compile(r"^## 7\. .*?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (`.*`) \| (`.*`) \| (`.*`) \| (.*\S) \|$", re.MULTILINE)

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One fact with two values."""

    fact: str
    engine: str
    microvm: str

    def __str__(self) -> str:
        return f"{self.fact}\n    engine:  {self.engine}\n    microVM: {self.microvm}"


@dataclass(frozen=True)
class Excuse:
    """A row of the table, for one of the facts that it names."""

    fact: str
    engine: str
    microvm: str
    why: str

    def covers(self, found: Difference) -> bool:
        return (
            matches(self.fact, found.fact)
            and matches(self.engine, found.engine)
            and matches(self.microvm, found.microvm)
        )

    def __str__(self) -> str:
        return self.fact


def matches(pattern: str, value: str) -> bool:
    """Whether the value fits the pattern, in which only * is special."""
    parts = map(re.escape, pattern.split("*"))
    return re.fullmatch(".*".join(parts), value, re.DOTALL) is not None


def differences(engine: Mapping[str, Any], microvm: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield each fact that differs between two runs."""
    for fact in sorted({*engine, *microvm}):
        pair = [text(facts[fact]) if fact in facts else ABSENT for facts in (engine, microvm)]
        if pair[0] != pair[1]:
            yield Difference(fact, *pair)


def excuses() -> list[Excuse]:
    """Read the table."""
    section = _SECTION.search(CONTRACT.read_text(encoding="utf-8"))
    assert section, f"{CONTRACT} has no section 7"
    rows = _ROW.findall(section[1])
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    assert len(rows) == len(lines) - 2, "a row of section 7 is not written as the others are"
    found = []
    for facts, engine, microvm, why in rows:
        for fact in re.findall(r"`(.+?)`", facts):
            found.append(Excuse(fact, engine.strip("`"), microvm.strip("`"), why))
    return found
