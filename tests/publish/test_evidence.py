"""Evidence in a real registry: attached, found again, judged."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import EvidenceError, NotTrusted
from fcbuild.fingerprint import Json
from fcbuild.publish import audit, dsse, evidence, keyless, oci, policy, reference, sbom, verdict
from fcbuild.publish.evidence import Predicates
from fcbuild.publish.oci import Descriptor, Index, Manifest
from fcbuild.publish.policy import KINDS, Rule
from fcbuild.publish.registry import Registry
from fcbuild.publish.verdict import Published
from fcbuild.store import Store
from tests.publish.test_publish import aarch64
from tests.publish.yard import Yard
from tests.registry import Registry as Running
from tests.unit.test_dsse import signer
from tests.unit.test_sbom import bom, image
from tests.unit.test_statement import result
from tests.unit.test_verdict import PROVENANCE

RULE = Rule("policy.toml: artifact[1]", "*", (), {"release": signer().public}, KINDS)
FILES = {"vmlinux": "a" * 64, "rootfs.ext4": "b" * 64}


@pytest.fixture
def registry(hub: Running, repository: str) -> Iterator[Registry]:
    """A repository of the test's own."""
    with Registry(reference.parse(hub.reference(repository)), push=True) as registry:
        yield registry


def artifact(registry: Registry, word: str = "one") -> Descriptor:
    """Push something to attach evidence to."""
    config, nothing = oci.empty()
    registry.push(config, nothing)
    manifest = Manifest(oci.MICROVM, config, (), {"is": word})
    registry.put(manifest.document(), oci.MANIFEST, "latest")
    return manifest.descriptor()


def said() -> Predicates:
    return {"boot": result(), "provenance": PROVENANCE, "sbom": bom()}


def outcomes(registry: Registry, to: Descriptor, rule: Rule = RULE) -> dict[str, str]:
    published = Published(to.digest.partition(":")[2], FILES)
    pieces = list(evidence.pieces(registry, to.digest))
    return {row.what: row.outcome for row in verdict.judge(published, pieces, rule)}


def test_what_is_attached_is_found_and_counts(registry: Registry) -> None:
    to = artifact(registry)
    assert outcomes(registry, to)["signature"] == "failed"
    evidence.attach(registry, to, image(), said(), signer())
    assert set(outcomes(registry, to).values()) == {"ok"}


def test_attaching_twice_leaves_the_same(registry: Registry) -> None:
    to = artifact(registry)
    assert evidence.attach(registry, to, image(), said(), signer()) == list(KINDS)
    slower: Predicates = {**said(), "boot": result(timings_ms={"total": 9999})}
    assert evidence.attach(registry, to, image(), slower, signer()) == []
    assert len(registry.referrers(to.digest)) == 4


def test_what_somebody_else_said_is_said_again(registry: Registry) -> None:
    to = artifact(registry)
    evidence.attach(registry, to, image(), said(), signer(b"\1" * 32))
    assert evidence.attach(registry, to, image(), said(), signer()) == list(KINDS)
    assert set(outcomes(registry, to).values()) == {"ok"}


def test_evidence_of_one_artifact_is_none_of_another(registry: Registry) -> None:
    """Whoever may write can attach a statement to another manifest, and gains nothing."""
    to, other = artifact(registry), artifact(registry, "another")
    evidence.attach(registry, to, image(), said(), signer())
    for piece in list(evidence.pieces(registry, to.digest)):
        evidence._attach(registry, other, piece.media_type, piece.content, "borrowed.json")
    found = outcomes(registry, other)
    assert {found[kind] for kind in (*KINDS, "signature")} == {"failed"}


def test_junk_that_is_attached_hides_nothing(registry: Registry) -> None:
    to = artifact(registry)
    for number in range(5):
        evidence._attach(registry, to, dsse.MEDIA_TYPE, b"junk %d" % number, "junk.json")
    evidence.attach_bundle(registry, to, b"{}")
    evidence.attach(registry, to, image(), said(), signer())
    assert set(outcomes(registry, to).values()) == {"ok"}


def test_more_than_anybody_looks_at_is_refused(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MAX_PIECES", 3)
    to = artifact(registry)
    evidence.attach(registry, to, image(), said(), signer())
    with pytest.raises(EvidenceError, match="4 things are attached"):
        list(evidence.pieces(registry, to.digest))
    monkeypatch.setattr(evidence, "MAX_PIECES", 4)
    monkeypatch.setattr(evidence, "MAX_BYTES", 1000)
    with pytest.raises(EvidenceError, match="more than 0 MiB are with"):
        list(evidence.pieces(registry, to.digest))


def test_what_is_listed_but_gone_hides_nothing(registry: Registry, hub: Running) -> None:
    to = artifact(registry)
    gone = evidence._attach(registry, to, dsse.MEDIA_TYPE, b"a manifest gone", "gone.json")
    evidence._attach(registry, to, dsse.MEDIA_TYPE, b"a layer gone", "gone.json")
    evidence.attach(registry, to, image(), said(), signer())
    for digest in (gone.digest, oci.sha256(b"a layer gone")):
        sha256 = digest.partition(":")[2]
        shutil.rmtree(hub.files / f"docker/registry/v2/blobs/sha256/{sha256[:2]}/{sha256}")
    assert set(outcomes(registry, to).values()) == {"ok"}


def test_evidence_that_is_altered_where_it_is_kept_is_none(
    registry: Registry, hub: Running
) -> None:
    to = artifact(registry)
    evidence.attach(registry, to, image(), {"boot": result()}, signer())
    (piece,) = evidence.pieces(registry, to.digest)
    sha256 = oci.sha256(piece.content).partition(":")[2]
    blob = hub.files / f"docker/registry/v2/blobs/sha256/{sha256[:2]}/{sha256}/data"
    blob.write_bytes(piece.content.replace(b"e", b"f", 1))
    assert outcomes(registry, to)["signature"] == "failed"


def test_a_large_bill_of_materials_comes_back(registry: Registry) -> None:
    to = artifact(registry)
    many: list[Json] = [{"name": f"package-{number}", "x": "x" * 500} for number in range(20_000)]
    large = {**bom(), "components": many}
    evidence.attach(registry, to, image(), {"sbom": large}, signer())
    rule = RULE._replace(evidence=("sbom",))
    assert outcomes(registry, to, rule)["sbom"] == "ok"


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_a_scanner_finds_the_plain_document(registry: Registry, tmp_path: Path) -> None:
    """As others' tools do: by the fallback tag, the artifact type and the layer's title."""
    to = artifact(registry)
    evidence.attach(registry, to, image(), said(), signer())
    listed = registry.manifest(to.digest.replace(":", "-"))
    index = oci.read(listed[1], listed[0].media_type, what="the list")
    assert isinstance(index, Index)
    found = []
    for entry in index.manifests:
        _, content = registry.manifest(entry.digest)
        manifest = json.loads(content)
        if manifest["artifactType"] == sbom.MEDIA_TYPE:
            found.append(entry.digest)
            assert manifest["layers"][0]["annotations"][oci.TITLE] == "sbom.cdx.json"
            assert manifest["subject"]["digest"] == to.digest
    (sha256,) = found
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false"]
    raw = subprocess.run(
        [*argv, f"docker://{registry.reference.name}@{sha256}"], capture_output=True, check=True
    )
    assert oci.sha256(raw.stdout) == sha256
    layer = oci.read(raw.stdout, oci.MANIFEST, what="the manifest")
    assert isinstance(layer, Manifest)
    assert json.loads(registry.read(layer.layers[0])) == bom()


def test_a_bundle_is_looked_at_before_it_is_attached() -> None:
    good = {"mediaType": keyless.MEDIA_TYPE, "dsseEnvelope": {}}
    keyless.look(json.dumps(good).encode(), "a.json")
    bad: list[Any] = [{**good, "mediaType": "x"}, {"mediaType": keyless.MEDIA_TYPE}, [], "a"]
    for document in bad:
        with pytest.raises(EvidenceError, match=r"a\.json: not a bundle"):
            keyless.look(json.dumps(document).encode(), "a.json")
    with pytest.raises(EvidenceError, match=r"a\.json: not JSON"):
        keyless.look(b"[", "a.json")


def test_every_architecture_of_an_index_is_looked_at(
    checkout: Path, tmp_path: Path, hub: Running, repository: str
) -> None:
    (checkout / "images/tool/image.toml").write_text('kernel = "tiny"\n')
    yard = Yard(checkout, Store(tmp_path / "store"))
    aarch64(yard)
    for name in ("tool", "arm"):
        yard.publish(hub.reference(f"{repository}:1"), name)
    with Registry(reference.parse(hub.reference(f"{repository}:1")), push=True) as registry:
        offers = audit.offers(registry)
        assert {offer.spec.arch for offer in offers} == {"x86_64", "aarch64"}
        (alone,) = audit.offers(Registry(offers[0].reference))
        assert alone == offers[0]
        asked = policy.of_key(signer().public, "key.pub")
        for offer in offers:
            assert audit.failed(audit.judge(offer, registry, asked)) == ["signature", *KINDS]
            assert audit.digests(offer, registry, tmp_path).outcome == "ok"
            with pytest.raises(NotTrusted, match="boot: nothing that counts is attached"):
                audit.insist(offer, registry, asked)
        elsewhere = policy.Policy(())
        assert audit.failed(audit.judge(offers[0], registry, elsewhere)) == ["policy"]
