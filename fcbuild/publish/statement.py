"""Statements: what somebody says about an artifact, in in-toto's form. Pure.

A statement names its subjects by digest, says of what type its predicate is, and has that.
(https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from fcbuild.errors import EvidenceError
from fcbuild.fingerprint import Json, canonical
from fcbuild.publish import jsontext

Kind = Literal["boot", "provenance", "sbom"]

MEDIA_TYPE = "application/vnd.in-toto+json"  # DSSE's payloadType of a statement
TYPE = "https://in-toto.io/Statement/v1"
# The predicates that are known here, and how people call them.
PREDICATES: Mapping[Kind, str] = {
    "boot": "https://in-toto.io/attestation/test-result/v0.1",
    "provenance": "https://slsa.dev/provenance/v1",
    "sbom": "https://cyclonedx.org/bom",
}
MAX_BYTES = 16 << 20  # of a statement; a bill of materials of 10,000 packages has 4 MiB

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_SUBJECTS = 1000


class Statement(NamedTuple):
    """subjects: name and sha256 of each that has one."""

    subjects: tuple[tuple[str, str], ...]
    predicate_type: str
    predicate: Mapping[str, Any]

    @property
    def kind(self) -> Kind | None:
        """What kind of evidence it is; None for one that is not known here."""
        known = (kind for kind, name in PREDICATES.items() if name == self.predicate_type)
        return next(known, None)

    def names(self, sha256: str) -> list[str]:
        """Return what it calls the artifact with this digest; nothing for one it is not about."""
        return [name for name, digest in self.subjects if digest == sha256]


def document(name: str, sha256: str, kind: Kind, predicate: Json) -> bytes:
    """Return the text of a statement about one artifact."""
    return canonical(
        {
            "_type": TYPE,
            "subject": [{"name": name, "digest": {"sha256": sha256}}],
            "predicateType": PREDICATES[kind],
            "predicate": predicate,
        }
    )


def parse(payload: bytes) -> Statement:
    """Read a statement. Raises EvidenceError."""
    try:
        found = jsontext.parse(payload)
        if not isinstance(found, dict) or found.get("_type") != TYPE:
            raise ValueError(f"it is not of type {TYPE}")
        subjects, kind, predicate = (
            found.get(key) for key in ("subject", "predicateType", "predicate")
        )
        if not isinstance(kind, str) or not isinstance(predicate, dict):
            raise ValueError("it has no predicate, or none of a type")
        if not isinstance(subjects, list) or not 0 < len(subjects) <= _MAX_SUBJECTS:
            raise ValueError("it has no list of subjects")
        named = (_subject(entry) for entry in subjects)
        return Statement(tuple(filter(None, named)), kind, predicate)
    except ValueError as error:
        raise EvidenceError(f"not an in-toto statement: {error}") from error


def _subject(entry: Any) -> tuple[str, str] | None:
    """Return name and sha256 of a subject, None for one that has none. Raises ValueError."""
    digests = entry.get("digest") if isinstance(entry, dict) else None
    if not isinstance(digests, dict):
        raise ValueError("a subject has no digest")
    name, sha256 = entry.get("name", ""), digests.get("sha256")
    if sha256 is None:
        return None
    if not isinstance(name, str) or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("a subject's digest is no sha256")
    return name, sha256
