"""Signatures without a key, Sigstore's: a bundle that a CI's own tool made, checked by identity.

The package `sigstore` does it, which is not installed unless somebody wants it: it brings twenty
others, and fetches what it trusts from the network.
"""

from __future__ import annotations

from collections.abc import Mapping

from fcbuild.errors import EvidenceError, ToolMissing
from fcbuild.publish import jsontext
from fcbuild.publish.policy import Identity

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def look(bundle: bytes, what: str) -> None:
    """Raise EvidenceError for what is no bundle of the version that is known here; who signed it,
    and what, is not looked at."""
    try:
        found = jsontext.parse(bundle)
        kind = found.get("mediaType") if isinstance(found, dict) else None
    except ValueError as error:
        raise EvidenceError(f"{what}: not JSON: {error}") from error
    if kind != MEDIA_TYPE or "dsseEnvelope" not in found:
        raise EvidenceError(f"{what}: not a bundle of Sigstore's with an envelope ({MEDIA_TYPE})")


def opened(bundle: bytes, identities: Mapping[str, Identity]) -> tuple[str, str, bytes]:
    """Return whose bundle it is, of these, and the type and bytes of what was signed.

    Raises EvidenceError for one that none of them signed, ToolMissing.
    """
    try:
        from sigstore.models import Bundle
        from sigstore.verify import Verifier, policy
    except ImportError as error:
        raise ToolMissing(
            "a signature of Sigstore's can only be checked with the Python package sigstore",
            hint=".venv/bin/pip install 'sigstore>=4'",
        ) from error
    why = "nobody"
    try:
        read, verifier = Bundle.from_json(bundle), Verifier.production()
        for who, one in identities.items():
            try:
                wanted = policy.Identity(identity=one.identity, issuer=one.issuer)
                kind, payload = verifier.verify_dsse(read, wanted)
            except Exception as error:
                why = f"not {who}: {error}"
            else:
                return who, kind, payload
    except Exception as error:
        # Of many kinds: a stranger's bundle is read by several libraries, each with its own.
        raise EvidenceError(f"a Sigstore bundle that cannot be checked: {error}") from error
    raise EvidenceError(f"a Sigstore bundle signed by nobody who may: {why}")
