"""Ed25519 keys, as ssh-keygen and openssl write them: to sign with, and to check signatures.

One kind of key, because a signature has to be the same each time: publishing twice then attaches
the same bytes. A key's name is its fingerprint, as `ssh-keygen -l` shows it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fcbuild.errors import SpecError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MAX_BYTES = 64 << 10  # of a key's file
_SSH = b"ssh-ed25519"  # RFC 8709
_PRIVATE, _PUBLIC = b"PRIVATE KEY-----", b"PUBLIC KEY-----"
_MAKE = (
    "ssh-keygen -t ed25519 -N '' -f FILE makes a pair: FILE to sign with, FILE.pub to check with"
)


class PublicKey(NamedTuple):
    """raw: its 32 bytes."""

    raw: bytes

    @property
    def keyid(self) -> str:
        """The fingerprint: SHA256: and the digest of the key as SSH sends it (RFC 4253, 6.6)."""
        fields = (_SSH, self.raw)
        blob = b"".join(struct.pack(">I", len(field)) + field for field in fields)
        return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether this key's owner signed the data."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key to sign with. What it is made of is in no message and no representation."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """Return the signature: 64 bytes, the same each time."""
        return self._key.sign(data)


def private(path: Path) -> PrivateKey:
    """Read a key to sign with: an OpenSSH private key, or PEM (PKCS#8). Raises SpecError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_ssh_private_key,
    )

    text = _read(path)
    where = f"key={path}"
    if _PRIVATE not in text:
        what = "is a public key" if _PUBLIC in text or text.startswith(_SSH) else "is no key"
        raise SpecError([f"{where}: {what}: signing needs a private one"], hint=_MAKE)
    load = load_ssh_private_key if b"BEGIN OPENSSH" in text else load_pem_private_key
    try:
        found = load(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if b"ENCRYPTED" in text or "password" in str(error).lower():
            raise SpecError(
                [f"{where}: is protected by a passphrase, for which nobody can be asked here"],
                hint=f"have a key for publishing alone: {_MAKE}",
            ) from None
        # Not the library's own words, nor the error itself: both could quote the key.
        raise SpecError([f"{where}: is no private key that can be read"], hint=_MAKE) from None
    if not isinstance(found, Ed25519PrivateKey):
        raise SpecError([f"{where}: is not an ed25519 key"], hint=_MAKE)
    return PrivateKey(found)


def public(path: Path) -> PublicKey:
    """Read a key to check signatures with, from its file. Raises SpecError."""
    text = _read(path)
    found = parse(text.decode("ascii", "replace"))
    if found is None:
        what = "is a private key: give the public one" if _PRIVATE in text else "is no ed25519 key"
        raise SpecError([f"key={path}: {what}"], hint=_MAKE)
    return found


def parse(text: str) -> PublicKey | None:
    """Return the key that a line of SSH's (ssh-ed25519 AAAA... comment) or a PEM text is; None for
    any other text."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        load_pem_public_key,
        load_ssh_public_key,
    )

    line = text.strip().encode("ascii", "replace")
    load: Any = load_pem_public_key if line.startswith(b"-----BEGIN") else load_ssh_public_key
    try:
        found = load(line)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return PublicKey(found.public_bytes_raw()) if isinstance(found, Ed25519PublicKey) else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([f"key={path}: cannot be read: {error.strerror}"], hint=_MAKE) from error
    if len(text) > _MAX_BYTES:
        raise SpecError([f"key={path}: is no key: larger than {_MAX_BYTES >> 10} KiB"], hint=_MAKE)
    return text
