"""What is trusted and what is not: evidence that is forged, borrowed, stale or of no sense."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from fcbuild.publish import dsse, keyless, provenance, sbom, statement, verdict
from fcbuild.publish.key import PrivateKey
from fcbuild.publish.policy import KINDS, Identity, Rule, Signer
from fcbuild.publish.statement import Kind
from fcbuild.publish.verdict import Piece, Published
from tests.unit.test_dsse import signer
from tests.unit.test_sbom import bom
from tests.unit.test_statement import result

SHA = "7" * 64
ARTIFACT = Published(SHA, {"vmlinux": "a" * 64, "rootfs.ext4": "b" * 64, "vm.json": "c" * 64})
OURS, OTHERS = signer(), signer(b"\1" * 32)
RULE = Rule("policy.toml: artifact[1]", "*", (), {"release": OURS.public}, KINDS)

PROVENANCE: Any = {
    "buildDefinition": {"buildType": provenance.BUILD_TYPE, "resolvedDependencies": [{}, {}]},
    "runDetails": {"builder": {"id": provenance.BUILDER}},
}


def piece(
    kind: Kind, predicate: Any, *, key: PrivateKey = OURS, sha256: str = SHA, name: str = "web"
) -> Piece:
    return Piece(dsse.MEDIA_TYPE, dsse.sign(statement.document(name, sha256, kind, predicate), key))


def whole(**changed: Any) -> list[Piece]:
    predicates: dict[Kind, Any] = {"boot": result(), "provenance": PROVENANCE, "sbom": bom()}
    return [piece(kind, predicate, **changed) for kind, predicate in predicates.items()]


def judged(pieces: Sequence[Piece], rule: Rule = RULE, artifact: Published = ARTIFACT) -> Any:
    return {row.what: (row.outcome, row.detail) for row in verdict.judge(artifact, pieces, rule)}


def failed(pieces: Sequence[Piece], **fields: Any) -> dict[str, str]:
    """Return what fails, and why."""
    rows = judged(pieces, RULE._replace(**fields))
    return {what: detail for what, (outcome, detail) in rows.items() if outcome == "failed"}


def test_all_that_is_asked_for_is_there_and_signed() -> None:
    assert judged(whole()) == {
        "policy": ("ok", "policy.toml: artifact[1]: boot, provenance, sbom by release"),
        "signature": ("ok", "by release"),
        "boot": (
            "ok",
            "firecracker 1.12.1, KVM emulated, boot, health, http :80/ -> 200; signed by release",
        ),
        "provenance": (
            "ok",
            "urn:fcbuild:microvm:1 by urn:fcbuild:builder:1, 2 dependencies; signed by release",
        ),
        "sbom": ("ok", f"CycloneDX 1.6, {len(bom()['components'])} components; signed by release"),
    }


def test_what_nobody_asked_for_may_be_missing() -> None:
    rows = judged([whole()[0]], RULE._replace(evidence=("boot",)))
    assert [outcome for outcome, _ in rows.values()] == ["ok", "ok", "ok", "not asked", "not asked"]


def test_of_what_may_be_unsigned_nothing_is_asked() -> None:
    rule = RULE._replace(signers={}, evidence=())
    assert judged([], rule) == {"policy": ("ok", "policy.toml: artifact[1]: nothing is asked of *")}


def test_nothing_attached_is_nothing_proven() -> None:
    found = failed([])
    assert found.pop("signature") == "nothing is attached"
    assert found == dict.fromkeys(KINDS, "nothing that counts is attached")


def test_a_strangers_signature_counts_for_nothing() -> None:
    found = failed(whole(key=OTHERS))
    assert found.keys() == {"signature", *KINDS}
    assert found["signature"] == f"signed by nobody who may: by {OTHERS.public.keyid}"


def test_a_stranger_who_calls_his_key_ours_is_still_one() -> None:
    envelope = json.loads(whole(key=OTHERS)[0].content)
    envelope["signatures"][0]["keyid"] = OURS.public.keyid
    assert "signature" in failed([Piece(dsse.MEDIA_TYPE, json.dumps(envelope).encode())])


def test_evidence_of_another_artifact_counts_for_nothing() -> None:
    found = failed(whole(sha256="8" * 64))
    assert {found[kind] for kind in KINDS} == {"it is about another artifact"}


def test_evidence_of_another_image_counts_for_nothing_where_images_are_named() -> None:
    found = failed(whole(name="db"), images=("web",))
    assert {found[kind] for kind in KINDS} == {"it is about db, not web"}
    assert not failed(whole(name="db"))
    assert not failed(whole(name="db"), images=("web", "db"))


def test_a_boot_of_other_files_proves_nothing() -> None:
    for file in ("vmlinux", "rootfs.ext4"):
        other = ARTIFACT._replace(files={**ARTIFACT.files, file: "f" * 64})
        rows = judged(whole(), artifact=other)
        assert rows["boot"] == ("failed", f"what was booted was another {file}")
        assert rows["sbom"][0] == "ok"


def test_a_boot_that_failed_is_no_proof_even_when_signed() -> None:
    found = failed([piece("boot", result(ok=False)), *whole()[1:]])
    assert found == {"boot": "it failed: boot"}


def test_junk_beside_good_evidence_does_no_harm() -> None:
    junk = [
        Piece(dsse.MEDIA_TYPE, b"\xff"),
        Piece(dsse.MEDIA_TYPE, b"[" * 100_000),
        Piece("application/octet-stream", b"{}"),
        Piece(keyless.MEDIA_TYPE, b"{}"),
        piece("boot", result(ok=False), key=OTHERS),
        Piece(dsse.MEDIA_TYPE, dsse.sign(b"no statement", OURS)),
        Piece(dsse.MEDIA_TYPE, dsse.sign(b"{}", OURS, payload_type="text/plain")),
    ]
    assert not failed([*junk, *whole(), *junk])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "predicate",
    [
        {},
        {"configuration": 1, "buildDefinition": [], "bomFormat": None},
        {"configuration": [{}], "buildDefinition": {}, "bomFormat": "SPDX"},
        {"configuration": [1, None], "buildDefinition": {"buildType": 1}, "runDetails": 1},
        {"configuration": [{"name": "vmlinux", "digest": None}], "bomFormat": sbom.FORMAT},
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_predicate_that_makes_no_sense_is_no_evidence(kind: Kind, predicate: Any) -> None:
    assert "makes no sense" in failed([piece(kind, predicate)], evidence=(kind,))[kind]


def test_a_statement_of_a_type_not_known_here_is_no_evidence() -> None:
    text = statement.document("web", SHA, "boot", {})
    text = text.replace(b"test-result/v0.1", b"test-result/v9")
    found = failed([Piece(dsse.MEDIA_TYPE, dsse.sign(text, OURS))])
    assert "test-result/v9" in found["signature"]


def test_what_strangers_wrote_does_nothing_to_a_terminal() -> None:
    envelope = json.loads(whole(key=OTHERS)[0].content)
    envelope["signatures"][0]["keyid"] = "\x1b[2J" + "x" * 10_000
    shown = failed([Piece(dsse.MEDIA_TYPE, json.dumps(envelope).encode())])["signature"]
    assert shown.isprintable() and len(shown) < 400


ODD: Any = [None, True, -1, 10**30, "", "\ud800", "\0", [], {}, [[]], {"a": 1}, "PASSED"]


def mutated(value: Any, random: Random) -> Any:
    """Return a JSON value with some of its parts missing, twice, or replaced by odd ones."""
    if random.random() < 0.08:
        return random.choice(ODD)
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if random.random() > 0.05}
        return {key: mutated(one, random) for key, one in kept.items()}
    if isinstance(value, list):
        return [mutated(one, random) for one in value[:4] for _ in range(random.choice([1, 1, 2]))]
    return value


@pytest.mark.parametrize("seed", range(300))
def test_no_statement_is_so_odd_that_it_is_more_than_a_reason(seed: int) -> None:
    random = Random(seed)
    whole_statement = json.loads(dsse.parse(random.choice(whole()).content).payload)
    text = json.dumps(mutated(whole_statement, random)).encode()
    rows = verdict.judge(ARTIFACT, [Piece(dsse.MEDIA_TYPE, dsse.sign(text, OURS))], RULE)
    assert all(row.detail.isprintable() for row in rows)
    assert not all(row.outcome == "ok" for row in rows)


# Sigstore

CI: dict[str, Signer] = {"ci": Identity("https://token.example.com", "https://example.com/ci")}
BUNDLE = Piece(keyless.MEDIA_TYPE, b"{}")


def test_a_bundle_needs_a_signer_with_an_identity() -> None:
    assert "no signer that has an identity may sign" in failed([BUNDLE])["signature"]


def test_without_the_package_a_bundle_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore", None)
    assert "the Python package sigstore" in failed([BUNDLE], signers=CI)["signature"]


class Stub:
    """Stands in for the package: its Verifier, of which the answer is said."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def verify_dsse(self, bundle: Any, wanted: Any) -> Any:
        self.asked.append(wanted)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        modules: dict[str, dict[str, Any]] = {
            "sigstore": {},
            "sigstore.models": {"Bundle": types.SimpleNamespace(from_json=json.loads)},
            "sigstore.verify": {
                "Verifier": types.SimpleNamespace(production=lambda: self),
                "policy": types.SimpleNamespace(Identity=lambda **said: said),
            },
        }
        for name, content in modules.items():
            module = types.ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)


def test_a_bundle_that_the_package_accepts_is_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    text = statement.document("web", SHA, "provenance", PROVENANCE)
    stub = Stub(("application/vnd.in-toto+json", text))
    stub.install(monkeypatch)
    assert not failed([BUNDLE], signers=CI, evidence=("provenance",))
    assert stub.asked == [
        {"identity": "https://example.com/ci", "issuer": "https://token.example.com"}
    ]


@pytest.mark.parametrize("error", [ValueError("another identity"), RuntimeError("no network")])
def test_a_bundle_that_it_refuses_is_none(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Stub(error).install(monkeypatch)
    assert f"not ci: {error}" in failed([BUNDLE], signers=CI)["signature"]


def test_a_bundle_that_is_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Stub(None).install(monkeypatch)
    broken = Piece(keyless.MEDIA_TYPE, b"[")
    assert "cannot be checked" in failed([broken], signers=CI)["signature"]
