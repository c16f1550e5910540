"""JSON texts of strangers, read so that no two readers can see two things in one text. Pure."""

from __future__ import annotations

import json
from typing import Any


def parse(text: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError with what is wrong: also for a key that an
    object has twice, for numbers that JSON does not have, and for what is nested too deeply."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
