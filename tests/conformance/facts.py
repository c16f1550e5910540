"""What one run of an image showed, as a flat mapping from the name of a fact to its value.

The probe (images/tools/probe.c) prints a JSON document as its first line. Its nested keys become
names like "limits.nofile.soft"; what is known from the outside is added: "status", "output" (what
followed the document), "errors" and "clock is right".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

CLOCK_S = 3.0  # how far a clock may be off
SHOWN = 300  # bytes of an output that are a fact as they are; of a longer one, its digest


@dataclass(frozen=True, kw_only=True)
class Health:
    """What became of a health check. code, output: of the last one that was looked at."""

    verdicts: tuple[str, ...]
    code: int
    output: str


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run, wherever it was. began, ended: our wall clock, in seconds around it."""

    output: bytes
    errors: bytes
    status: int
    health: Health | None
    began: float
    ended: float


def facts(ran: Ran) -> dict[str, Any]:
    """Return the facts of a run; a program that could not say anything has only the outer ones."""
    first, newline, rest = ran.output.partition(b"\n")
    document: dict[str, Any] = {}
    if newline and first.startswith(b"{"):
        document = json.loads(first, object_pairs_hook=_pairs)
        env = [item.partition("=") for item in document.pop("env")]
        document["env"] = {"order": [name for name, _, _ in env]}
        document["env"] |= {name: value for name, _, value in env}
        said = document.pop("clock")
        document["clock is right"] = ran.began - CLOCK_S <= said <= ran.ended + CLOCK_S
    else:
        rest = ran.output
    outer = {"status": ran.status, "output": _shown(rest), "errors": _shown(ran.errors)}
    if ran.health:
        outer |= {f"health.{name}": value for name, value in asdict(ran.health).items()}
    return {**dict(_flat(document)), **outer}


def text(value: Any) -> str:
    """Return a fact's value in one line, as tables and failures show it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)[1:-1].replace('\\"', '"')
    return json.dumps(value, ensure_ascii=False)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The probe writes bytes as Latin-1: read them as what they mostly are."""
    return {_decoded(key): _decoded(value) for key, value in pairs}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.encode("latin-1").decode("utf-8", "replace") if isinstance(value, str) else value


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(data: bytes) -> str:
    if len(data) <= SHOWN:
        return data.decode("utf-8", "backslashreplace")
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"
