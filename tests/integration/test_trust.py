"""The commands, with a real registry: publish with a key, verify-artifact, and boot from= that
refuses before it fetches. The receipts here are of boots that others have seen; tests/boot has one
of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fcbuild import spec
from fcbuild.build.engine import Docker
from fcbuild.fingerprint import canonical, digest
from fcbuild.look import readers
from fcbuild.plan import Plan
from fcbuild.publish import dsse, evidence, reference, statement
from fcbuild.publish.registry import Registry as Client
from fcbuild.publish.subject import Subject
from fcbuild.store import Store
from fcbuild.verify import Receipt
from fcbuild.vmm.machine import Vmm
from tests import registry as registries
from tests import workspace
from tests.registry import Registry
from tests.unit.test_dsse import ED25519, SSH_PUBLIC, private_bytes, signer
from tests.workspace import Result, Workspace

pytestmark = pytest.mark.engine

KEYID = signer().public.keyid
IMAGE = "evident"
DOCKERFILE = """
FROM fcbuild/debian-base
RUN mkdir -p /opt/site/Some_Thing-1.5.dist-info /srv/node_modules/@scope/thing \\
 && printf 'Metadata-Version: 2.1\\nName: Some_Thing\\nVersion: 1.5\\n' \\
    > /opt/site/Some_Thing-1.5.dist-info/METADATA \\
 && printf '{"name": "@scope/thing", "version": "2.0.0"}' \\
    > /srv/node_modules/@scope/thing/package.json
CMD ["true"]
"""


@dataclass(frozen=True)
class Place:
    """A checkout with an image that is built, a registry, and a pair of keys in the checkout."""

    checkout: Workspace
    registry: Registry

    @property
    def reference(self) -> str:
        return self.registry.reference("team/evident:1")

    @property
    def policy(self) -> Path:
        return self.checkout.root / "policy.toml"

    @property
    def plan(self) -> Plan:
        return Plan(spec.load(self.checkout.root))

    def doit(self, *args: str) -> Result:
        return self.checkout.doit(*args)

    def verify(self, *args: str) -> Result:
        return self.doit("verify-artifact", f"from={self.reference}", *args)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    checkout = workspace.make(tmp_path_factory.mktemp("checkout"))
    checkout.image(IMAGE, "", DOCKERFILE)
    built = checkout.doit("build", f"image={IMAGE}")
    assert built.status == 0, built.output
    (checkout.root / "key").write_bytes(private_bytes(ED25519, PrivateFormat.OpenSSH))
    (checkout.root / "key").chmod(0o600)
    (checkout.root / "key.pub").write_bytes(SSH_PUBLIC)
    other = signer(b"\1" * 32)
    (checkout.root / "other.pub").write_bytes(
        other._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    )
    with registries.serve(tmp_path_factory.mktemp("registry")) as running:
        yield Place(checkout, running)


def receive(place: Place, *, ok: bool = True) -> None:
    """Write the receipt of a boot."""
    plan, store = place.plan, Store(place.checkout.store)
    kernel = store.need(plan.kernel(plan.specs.images[IMAGE].kernel))
    rootfs = store.need(plan.rootfs(IMAGE))
    vmm = cast(Vmm, SimpleNamespace(name="firecracker", version="1.12.1", kind="emulated"))
    receipt = Receipt(IMAGE, "x86_64", kernel, rootfs, vmm, ok=ok, timings={"total": 1234})
    path = place.checkout.root / "artifacts" / "receipts" / f"{IMAGE}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(receipt.to_json())


@pytest.fixture(scope="module")
def published(place: Place) -> Place:
    receive(place)
    done = place.doit("publish", f"image={IMAGE}", f"to={place.reference}", "key=key")
    assert done.status == 0, done.output
    assert signed(done) == f"signed boot, provenance, sbom {KEYID}"
    assert "warning" not in done.output
    secret = (place.checkout.root / "key").read_text().splitlines()[2]
    assert secret not in done.output
    return place


def signed(result: Result) -> str:
    (found,) = (text for text in result.output.splitlines() if text.startswith("signed"))
    return " ".join(found.split())


def title(result: Result) -> str:
    return next(t for t in result.output.splitlines() if t.startswith(f"{IMAGE} for x86_64: "))


def document(result: Result) -> Any:
    """Return the JSON that a command has printed."""
    (found,) = (text for text in result.output.splitlines() if text[:1] in "[{")
    return json.loads(found)


def verdict(result: Result) -> Any:
    """Return what was found of the one architecture."""
    (found,) = document(result)
    return found


def rows(result: Result) -> Any:
    found = verdict(result)
    return {row["what"]: (row["outcome"], row["detail"]) for row in found["rows"]}


def test_what_was_signed_passes_with_its_key(published: Place) -> None:
    done = published.verify("key=key.pub")
    assert done.status == 0, done.output
    shown = done.output.splitlines()
    table = [text.split()[:2] for text in shown[shown.index(title(done)) + 1 :]]
    assert list(map(tuple, table)) == [
        *(("policy", "ok"), ("signature", "ok")),
        *(("boot", "ok"), ("provenance", "ok"), ("sbom", "ok"), ("digests", "ok")),
    ]
    assert "firecracker 1.12.1, KVM emulated, boot; signed by key.pub" in done.output
    found = published.verify("key=key.pub", "--json")
    known = verdict(found)
    assert known["trusted"] is True
    assert known["reference"] == f"{published.reference}@{known['digest']}"


def test_publishing_again_signs_nothing_again(published: Place) -> None:
    receive(published)
    again = published.doit("publish", f"image={IMAGE}", f"to={published.reference}", "key=key")
    assert again.status == 0, again.output
    assert signed(again) == f"signed before {KEYID}"


def test_another_key_has_signed_nothing(published: Place) -> None:
    done = published.verify("key=other.pub", "--json")
    assert done.status == 1
    found = rows(done)
    assert found["signature"] == ("failed", f"signed by nobody who may: by {KEYID}")
    assert found["boot"][0] == "failed" and found["digests"][0] == "ok"
    assert "is not trusted: signature, boot, provenance, sbom" in done.output


def test_without_a_word_on_whom_to_trust_nothing_is_verified(published: Place) -> None:
    done = published.verify()
    assert done.status == 1
    assert "nothing says whom to trust: there is no policy.toml" in done.output


def said(place: Place) -> dict[str, Any]:
    """Return what is said of the image in the registry: predicates by kind."""
    manifest = verdict(place.verify("key=key.pub", "--json"))["digest"]
    with Client(reference.parse(place.reference)) as registry:
        texts = [dsse.parse(piece.content).payload for piece in evidence.pieces(registry, manifest)]
    statements = map(statement.parse, texts)
    return {str(one.kind): one.predicate for one in statements}


def test_a_real_image_has_a_valid_bill_of_materials(published: Place) -> None:
    found = said(published)["sbom"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None
    urls = {one.get("purl", "") for one in found["components"]}
    assert {"pkg:pypi/some-thing@1.5", "pkg:npm/%40scope/thing@2.0.0"} <= urls
    done = published.doit("inspect", f"image={IMAGE}", "reader=debugfs", "--json")
    assert {
        (one["name"], one["version"])
        for one in found["components"]
        if one.get("purl", "").startswith("pkg:deb/debian/")
    } == {(one["name"], one["version"]) for one in document(done)["packages"]}
    (kernel,) = (one for one in found["components"] if one["name"] == "linux-kernel")
    properties = {one["name"]: one["value"] for one in kernel["properties"]}
    configs = published.checkout.store.glob("objects/kernel/*/config")
    assert properties["fcbuild:kernel:config-sha256"] in set(map(digest, configs))


def test_evidence_is_the_same_each_time(published: Place) -> None:
    plan, store = published.plan, Store(published.checkout.store)
    kernel, rootfs = plan.kernel(plan.specs.images[IMAGE].kernel), plan.rootfs(IMAGE)
    about = Subject(IMAGE, "x86_64", store.need(kernel), store.need(rootfs))
    with readers.opened(
        [about.rootfs.file("rootfs.ext4")],
        wanted="debugfs",
        engine=Docker(),
        toolchain=lambda: plan.toolchain.tag,
        logs=published.checkout.root,
    ) as (tree,):
        again = evidence.predicates(
            about, rootfs=rootfs, kernel=kernel, tree=tree, receipt=None, store=store
        )
    found = said(published)
    for kind, predicate in again.items():
        assert canonical(predicate) == canonical(found[kind])


RULE = f"""
[signer.release]
key = "{SSH_PUBLIC.decode()}"
[[artifact]]
from = "%s/team/*"
images = ["{IMAGE}"]
signers = ["release"]
evidence = ["boot", "sbom"]
"""


@pytest.fixture
def policy(published: Place) -> Iterator[Path]:
    yield published.policy
    published.policy.unlink()


def test_the_policy_of_the_checkout_counts(published: Place, policy: Path) -> None:
    policy.write_text(RULE % published.registry.host)
    done = published.verify("--json")
    assert done.status == 0, done.output
    assert rows(done)["boot"][0] == "ok" and rows(done)["policy"][1].startswith("policy.toml: ")
    policy.write_text(RULE % "registry.example.com")
    refused = published.verify()
    assert refused.status == 1
    assert f"it says nothing of {published.registry.host}/team/evident" in refused.output


def test_a_key_and_a_policy_at_once_are_refused(published: Place) -> None:
    done = published.verify("key=key.pub", "policy=policy.toml")
    assert (done.status, "one of them says whom to trust" in done.output) == (1, True)


def test_a_boot_of_what_does_not_pass_is_refused_before_it_is_fetched(
    published: Place, policy: Path
) -> None:
    policy.write_text((RULE % published.registry.host).replace(f'"{IMAGE}"', '"debian-web"'))
    done = published.doit("boot", f"from={published.reference}", "kvm=native")
    assert done.status == 1
    assert "is not trusted:" in done.output
    assert f"boot: it is about {IMAGE}, not debian-web" in done.output
    assert "fetching" not in done.output and "booting" not in done.output


def test_a_boot_without_a_policy_is_asked_for_nothing(published: Place) -> None:
    """It gets as far as the VMM: kvm=native ends there, on a machine without."""
    done = published.doit("boot", f"from={published.reference}", "policy=nowhere.toml")
    assert done.status == 1
    assert "nowhere.toml: cannot be read: No such file" in done.output


def test_what_was_published_unverified_lacks_a_boot(place: Place) -> None:
    receive(place, ok=False)
    to = place.registry.reference("team/unverified:1")
    key = place.checkout.root / "key"
    key.chmod(0o644)
    done = place.doit("publish", f"image={IMAGE}", f"to={to}", "key=key", "unverified=1")
    key.chmod(0o600)
    assert "warning: key=key: others may read it" in done.output
    assert done.status == 0, done.output
    assert signed(done) == f"signed provenance, sbom {KEYID}"
    found = place.doit("verify-artifact", f"from={to}", "key=key.pub", "--json")
    assert found.status == 1
    failed = {what for what, (outcome, _) in rows(found).items() if outcome == "failed"}
    assert failed == {"boot"}


def test_bytes_that_are_altered_in_the_registry_are_seen(published: Place) -> None:
    blobs = published.registry.files / "docker/registry/v2/blobs/sha256"
    largest = max(blobs.rglob("data"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        done = published.verify("key=key.pub", "--json")
    finally:
        largest.write_bytes(content)
    assert done.status == 1
    found = rows(done)
    assert found["digests"][0] == "failed" and "other bytes" in found["digests"][1]
    assert found["boot"][0] == "ok"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nowhere", "key=nowhere: cannot be read"),
        ("key.pub", "key=key.pub: is a public key: signing needs a private one"),
    ],
)
def test_a_key_that_cannot_sign_is_named_before_anything_is_pushed(
    place: Place, key: str, said: str
) -> None:
    receive(place)
    to = place.registry.reference("team/nothing:1")
    done = place.doit("publish", f"image={IMAGE}", f"to={to}", f"key={key}")
    assert done.status == 1
    assert said in done.output and "pushed" not in done.output


def test_a_bundle_is_attached_to_one_image(place: Place) -> None:
    receive(place)
    to = place.registry.reference("team/bundled:1")
    file = place.checkout.root / "bundle.json"
    argv = ["publish", f"image={IMAGE}", f"to={to}", f"bundle={file}"]
    file.write_text("{}")
    assert "not a bundle of Sigstore's" in place.doit(*argv).output
    kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    file.write_text(json.dumps({"mediaType": kind, "dsseEnvelope": {}}))
    done = place.doit(*argv)
    assert done.status == 0, done.output
    line = next(text for text in done.output.splitlines() if text.startswith("manifest"))
    with Client(reference.parse(to)) as registry:
        (piece,) = evidence.pieces(registry, line.split()[-1])
    assert piece == (kind, file.read_bytes())
