"""Envelopes and keys: what others make we read, what we make others read, what is altered fails."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from fcbuild.errors import EvidenceError, SpecError
from fcbuild.publish import dsse, key, statement
from fcbuild.publish.key import PrivateKey

PAYLOAD = b'{"_type":"x"}\n'
# https://www.rfc-editor.org/rfc/rfc8032#section-7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def signer(seed: bytes = SEED) -> PrivateKey:
    return PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))


def private_bytes(made: Any, form: PrivateFormat, password: bytes | None = None) -> bytes:
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    return bytes(made.private_bytes(Encoding.PEM, form, protection))


ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
SSH_PUBLIC = ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
PEM_PUBLIC = ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_what_is_signed_is_what_the_specification_has_as_its_example() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_envelope_is_read_back_and_its_signer_known() -> None:
    text = dsse.sign(PAYLOAD, signer())
    found = dsse.parse(text)
    assert (found.payload_type, found.payload) == ("application/vnd.in-toto+json", PAYLOAD)
    keys = {"other": signer(b"\1" * 32).public, "us": signer().public}
    assert dsse.signers(found, keys) == ["us"]
    assert dsse.signers(found, {}) == []
    assert text == dsse.sign(PAYLOAD, signer()), "the same each time"


def test_another_implementation_accepts_ours() -> None:
    other = SSlibKey("anything", "ed25519", "ed25519", {"public": PUBLIC.hex()})
    envelope = json.loads(dsse.sign(PAYLOAD, signer()))
    other.keyid = envelope["signatures"][0]["keyid"]
    assert OtherEnvelope.from_dict(envelope).verify([other], 1)


def test_we_accept_another_implementations() -> None:
    made = OtherEnvelope(PAYLOAD, "application/vnd.in-toto+json", {})
    made.sign(CryptoSigner(ED25519))
    found = dsse.parse(json.dumps(made.to_dict()).encode())
    assert dsse.signers(found, {"us": signer().public}) == ["us"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_plain_openssl_accepts_ours(tmp_path: Path) -> None:
    envelope = json.loads(dsse.sign(PAYLOAD, signer()))
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (tmp_path / "signed").write_bytes(signed)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "key").write_bytes(PEM_PUBLIC)
    argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key"]
    argv += ["-in", "signed", "-sigfile", "sig"]

    def status() -> int:
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).returncode

    assert status() == 0
    (tmp_path / "signed").write_bytes(signed + b" ")
    assert status() != 0


@pytest.mark.parametrize("what", ["payload", "payloadType", "sig"])
def test_an_altered_envelope_has_no_signer(what: str) -> None:
    envelope = json.loads(dsse.sign(PAYLOAD, signer()))
    if what == "payloadType":
        envelope[what] = "application/json"
    else:
        place = envelope if what == "payload" else envelope["signatures"][0]
        content = bytearray(base64.b64decode(place[what]))
        content[3] ^= 1
        place[what] = base64.b64encode(content).decode()
    found = dsse.parse(json.dumps(envelope).encode())
    assert dsse.signers(found, {"us": signer().public}) == []


def test_a_signature_under_another_keys_name_is_its_owners() -> None:
    envelope = json.loads(dsse.sign(PAYLOAD, signer()))
    envelope["signatures"][0]["keyid"] = signer(b"\1" * 32).public.keyid
    keys = {"other": signer(b"\1" * 32).public, "us": signer().public}
    assert dsse.signers(dsse.parse(json.dumps(envelope).encode()), keys) == ["us"]


def test_base64_of_either_alphabet_is_taken() -> None:
    payload = bytes(range(256))
    envelope = json.loads(dsse.sign(payload, signer()))
    envelope["payload"] = base64.urlsafe_b64encode(payload).decode()
    found = dsse.parse(json.dumps(envelope).encode())
    assert dsse.signers(found, {"us": signer().public}) == ["us"]


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(dsse.sign(PAYLOAD, signer())), **fields}).encode()


SIGNATURE = {"sig": base64.b64encode(b"\0" * 64).decode()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "not an object"),
        (b"{" * 9, "Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"payload": "", "payload": ""}', "a key twice"),
        (changed(payload=None), "it has no payload"),
        (changed(payload="e30=\n"), "payload is not base64"),
        (changed(payload="e3"), "payload is not base64"),
        (changed(payload="é"), "payload is not base64"),
        (changed(payloadType=7), "it has no payloadType"),
        (changed(signatures=[]), "no list of at most 16"),
        (changed(signatures=[SIGNATURE] * 17), "no list of at most 16"),
        (changed(signatures={}), "no list of at most 16"),
        (changed(signatures=["a"]), "a signature is not an object"),
        (changed(signatures=[{"keyid": "a"}]), "it has no sig"),
        (changed(signatures=[{**SIGNATURE, "keyid": [1]}]), "keyid is not a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_envelope_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(EvidenceError, match=said):
        dsse.parse(text)


def test_what_nobody_would_read_is_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement, "MAX_BYTES", 10)
    with pytest.raises(EvidenceError, match="more than one statement may have"):
        dsse.sign(PAYLOAD, signer())


def test_an_envelope_of_an_absurd_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsse, "MAX_BYTES", 100)
    with pytest.raises(EvidenceError, match="larger than"):
        dsse.parse(changed())


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 64, b"\xff" * 64, b"\0" * 1000])
def test_no_bytes_are_a_signature_by_chance(signature: bytes) -> None:
    assert not signer().public.verifies(signature, PAYLOAD)


# Keys


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8])
def test_private_keys_of_both_forms_are_read(tmp_path: Path, form: PrivateFormat) -> None:
    (tmp_path / "key").write_bytes(private_bytes(ED25519, form))
    assert key.private(tmp_path / "key").public.raw == PUBLIC


@pytest.mark.parametrize("text", [SSH_PUBLIC, SSH_PUBLIC + b" me@here\n", PEM_PUBLIC])
def test_public_keys_of_both_forms_are_read(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "key.pub").write_bytes(text)
    assert key.public(tmp_path / "key.pub").raw == PUBLIC
    assert key.parse(text.decode()) == key.public(tmp_path / "key.pub")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_what_ssh_keygen_makes_is_taken_and_called_as_it_calls_it(tmp_path: Path) -> None:
    def keygen(*argv: str) -> str:
        done = subprocess.run(
            ["ssh-keygen", *argv], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    keygen("-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", "key")
    made = key.private(tmp_path / "key")
    assert key.public(tmp_path / "key.pub") == made.public
    assert keygen("-l", "-f", "key.pub").split()[1] == made.public.keyid


EC = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is no key"),
        (b"hello", "is no key"),
        (SSH_PUBLIC, "is a public key: signing needs a private one"),
        (PEM_PUBLIC, "is a public key: signing needs a private one"),
        (private_bytes(EC, PrivateFormat.PKCS8), "is not an ed25519 key"),
        (private_bytes(EC, PrivateFormat.OpenSSH), "is not an ed25519 key"),
        (private_bytes(ED25519, PrivateFormat.PKCS8, b"secret"), "protected by a passphrase"),
        (private_bytes(ED25519, PrivateFormat.PKCS8)[:60], "no private key that can be read"),
        (
            b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n",
            "no private key that can be read",
        ),
        (b"-----BEGIN PRIVATE KEY-----" + b"A" * (1 << 17), "larger than 64 KiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_key_to_sign_with_is_named(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(SpecError, match=said) as caught:
        key.private(tmp_path / "key")
    assert "c2VjcmV0" not in str(caught.value)
    assert "ssh-keygen -t ed25519" in str(caught.value)


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_a_key_of_sshs_with_a_passphrase_is_named_as_such(tmp_path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", "key"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    with pytest.raises(SpecError, match="protected by a passphrase"):
        key.private(tmp_path / "key")


@pytest.mark.parametrize("read", [key.private, key.public])
def test_a_key_that_is_not_there_is_named(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(SpecError, match=r"key=.*/nowhere: cannot be read: No such file"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (private_bytes(ED25519, PrivateFormat.OpenSSH), "is a private key: give the public one"),
        (b"ssh-rsa AAAA", "is no ed25519 key"),
        (b"ssh-ed25519 AAAA", "is no ed25519 key"),
        (EC.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "no ed25519 key"),
        (b"\xff\xfe\0", "is no ed25519 key"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_key_to_check_with_is_named(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(SpecError, match=said):
        key.public(tmp_path / "key")
