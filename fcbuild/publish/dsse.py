"""Signed envelopes: a payload, its type, and who signed both. Pure, but for keys.

    {"payload": BASE64, "payloadType": TYPE, "signatures": [{"keyid": NAME, "sig": BASE64}]}

What is signed is not the envelope but `pae`, which has one reading. A key's name in an envelope is
a hint and proves nothing. (https://github.com/secure-systems-lab/dsse, version 1)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from fcbuild.errors import EvidenceError
from fcbuild.fingerprint import canonical
from fcbuild.publish import jsontext, statement
from fcbuild.publish.key import PrivateKey, PublicKey

MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"
MAX_BYTES = statement.MAX_BYTES // 3 * 4 + (64 << 10)

_MAX_SIGNATURES = 16  # each is tried with each key
_URL_SAFE = str.maketrans("-_", "+/")


class Envelope(NamedTuple):
    """An envelope as it was read; nothing in it is proven. signatures: name of the key, and the
    signature."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, key: PrivateKey, *, payload_type: str = statement.MEDIA_TYPE) -> bytes:
    """Return the text of an envelope; the same payload and key give the same. Raises EvidenceError
    for what nobody would read."""
    if len(payload) > statement.MAX_BYTES:
        raise EvidenceError(
            f"{len(payload) >> 20} MiB are more than one statement may have: "
            f"{statement.MAX_BYTES >> 20} MiB"
        )
    signature = key.sign(pae(payload_type, payload))
    return canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": key.public.keyid, "sig": base64.b64encode(signature).decode()}
            ],
        }
    )


def parse(text: bytes) -> Envelope:
    """Read an envelope. Raises EvidenceError."""
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        found = jsontext.parse(text)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        kind, signatures = found.get("payloadType"), found.get("signatures")
        if not isinstance(kind, str):
            raise ValueError("it has no payloadType")
        if not isinstance(signatures, list) or not 0 < len(signatures) <= _MAX_SIGNATURES:
            raise ValueError(f"it has no list of at most {_MAX_SIGNATURES} signatures")
        return Envelope(kind, _bytes(found, "payload"), tuple(map(_signature, signatures)))
    except ValueError as error:
        raise EvidenceError(f"not a DSSE envelope: {error}") from error


def signers(envelope: Envelope, keys: Mapping[str, PublicKey]) -> list[str]:
    """Return whose keys, of these, have signed the envelope."""
    data = pae(envelope.payload_type, envelope.payload)
    return [
        who
        for who, key in keys.items()
        if any(key.verifies(signature, data) for _, signature in envelope.signatures)
    ]


def _signature(entry: Any) -> tuple[str, bytes]:
    if not isinstance(entry, dict):
        raise ValueError("a signature is not an object")
    keyid = entry.get("keyid") or ""
    if not isinstance(keyid, str):
        raise ValueError("a signature's keyid is not a string")
    return keyid, _bytes(entry, "sig")


def _bytes(table: Mapping[str, Any], key: str) -> bytes:
    """Return what a value in base64 stands for; either alphabet is to be taken."""
    value = table.get(key)
    if not isinstance(value, str):
        raise ValueError(f"it has no {key}")
    try:
        return base64.b64decode(value.translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{key} is not base64: {error}") from error
