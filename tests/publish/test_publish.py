"""Images go to a registry, and come from there."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import ArtifactError, PublishRefused, RegistryError, SpecError
from fcbuild.publish import bundle, oci, proof, push
from fcbuild.publish.oci import Descriptor, Index, Manifest
from fcbuild.publish.reference import parse
from fcbuild.publish.registry import Registry
from tests.faults import Fault, Proxy
from tests.publish.yard import FACTS, MIB, QUICK, Yard, change
from tests.registry import Registry as Hub

BLOBS = "/v2/.*/blobs/sha256:.*"
ARM = """
arch = "aarch64"
kernel = "tiny"
"""


def manifest(reference: str) -> Manifest:
    with Registry(parse(reference), patience=QUICK) as registry:
        descriptor, content = registry.manifest(parse(reference).version)
        found = oci.read(content, descriptor.media_type, what="it")
        if isinstance(found, Index):
            content = registry.manifest(found.manifests[0].digest)[1]
            found = oci.read(content, oci.MANIFEST, what="it")
    assert isinstance(found, Manifest)
    return found


def beside(to: str, name: str, tag: str = "1") -> str:
    """Return another reference of the same registry."""
    return f"{to.rpartition(':')[0]}{name}:{tag}"


def aarch64(yard: Yard) -> None:
    toml = yard.root / "kernels/tiny/kernel.toml"
    toml.write_text('arch = ["x86_64", "aarch64"]\n' + toml.read_text())
    directory = yard.root / "images/arm"
    directory.mkdir()
    (directory / "image.toml").write_text(ARM)
    (directory / "Dockerfile").write_text('FROM scratch\nCMD ["/x"]\n')


def test_what_is_published_has_the_form_that_is_promised(yard: Yard, to: str) -> None:
    done = yard.publish(to)
    found = manifest(to)
    assert found.artifact_type == "application/vnd.fcbuild.microvm.v1"
    assert found.config.media_type == "application/vnd.fcbuild.microvm.config.v1+json"
    assert [(layer.title, layer.media_type) for layer in found.layers] == [
        ("vmlinux", "application/vnd.fcbuild.kernel.v1+zstd"),
        ("rootfs.ext4", "application/vnd.fcbuild.disk.ext4.v1+zstd"),
        ("vm.json", "application/vnd.fcbuild.vm.v1+json"),
        ("boot.sh", "application/vnd.fcbuild.script.v1"),
        ("fcbuild.json", "application/vnd.fcbuild.microvm.config.v1+json"),
    ]
    _, rootfs = yard.built()
    assert found.layers[1].annotations == {
        "org.opencontainers.image.title": "rootfs.ext4",
        "dev.fcbuild.digest": f"sha256:{rootfs.digests['rootfs.ext4']}",
        "dev.fcbuild.size": str(rootfs.sizes["rootfs.ext4"]),
    }
    assert found.annotations == {}
    assert done.fingerprint.startswith("fp-") and len(done.fingerprint) == 35
    with Registry(parse(to)) as registry:
        index = oci.read(registry.manifest("1")[1], oci.INDEX, what="it")
        assert isinstance(index, Index)
        assert index.entry("x86_64") == found.entry("x86_64")
        assert registry.manifest(done.fingerprint)[0].digest == done.manifest.digest


def test_publishing_twice_sends_nothing_and_gives_the_same_digest(
    yard: Yard, proxy: Proxy, to: str
) -> None:
    first = yard.publish(to)
    sent = proxy.requests("PUT", ".*")
    second = yard.publish(to)
    assert (second.digest, second.manifest) == (first.digest, first.manifest)
    assert not any(layer.pushed for layer in second.layers)
    assert proxy.requests("PUT", ".*") == sent
    # To another repository from the beginning: the same bytes.
    third = yard.publish(beside(to, "b", "2"))
    assert third.digest == first.digest and all(layer.pushed for layer in third.layers[:4])


def test_a_tag_moves_and_the_fingerprints_stays(yard: Yard, to: str) -> None:
    first = yard.publish(to)
    assert first.previous is None
    change(yard)
    second = yard.publish(to)
    assert second.fingerprint != first.fingerprint
    assert second.previous and second.previous.digest == first.manifest.digest
    for done in (first, second):
        assert manifest(str(parse(to).tagged(done.fingerprint))).descriptor() == done.manifest
    assert yard.publish(to).previous is None


def test_each_architecture_has_its_place_under_one_tag(yard: Yard, to: str) -> None:
    aarch64(yard)
    x86 = yard.publish(to)
    arm = yard.publish(to, "arm")
    again = yard.publish(to)
    assert again.digest == arm.digest != x86.digest
    with Registry(parse(to)) as registry:
        index = oci.read(registry.manifest("1")[1], oci.INDEX, what="it")
    assert isinstance(index, Index)
    assert [entry.architecture for entry in index.manifests] == ["amd64", "arm64"]
    assert index.entry("aarch64") == Descriptor(
        oci.MANIFEST, arm.manifest.digest, arm.manifest.size, {}, None, "arm64"
    )


def test_two_that_publish_at_the_same_time_lose_nothing(
    yard: Yard, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aarch64(yard)
    arm = yard.publish(beside(to, "", "other"), "arm")
    put = Registry.put
    raced: list[bool] = []

    def race(self: Registry, content: bytes, media_type: str, version: str) -> bool:
        done = put(self, content, media_type, version)
        if version == "1" and not raced:  # one that has not seen ours
            other = Index((Descriptor(oci.MANIFEST, *arm.manifest[1:3], {}, None, "arm64"),))
            raced.append(put(self, other.document(), oci.INDEX, version))
        return done

    monkeypatch.setattr(Registry, "put", race)
    x86 = yard.publish(to)
    assert raced
    with Registry(parse(to)) as registry:
        descriptor, content = registry.manifest("1")
        index = oci.read(content, oci.INDEX, what="it")
    assert isinstance(index, Index) and descriptor.digest == x86.digest
    assert [entry.digest for entry in index.manifests] == [x86.manifest.digest, arm.manifest.digest]


def container(registry: Registry, tag: str) -> None:
    """Push a container image."""
    kind = "application/vnd.oci.image.config.v1+json"
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}})
    described = oci.describe(kind, config.encode())
    registry.push(described, config.encode())
    registry.put(Manifest(None, described, ()).document(), oci.MANIFEST, tag)


def test_what_others_have_under_a_tag_is_not_lost(yard: Yard, to: str) -> None:
    with Registry(parse(to), push=True) as registry:
        container(registry, "1")
        with pytest.raises(PublishRefused, match="something else than a microVM"):
            yard.publish(to)
        held = manifest(to).entry("x86_64")
        registry.put(Index((held,)).document(), oci.INDEX, "2")
        with pytest.raises(PublishRefused):
            yard.publish(beside(to, "", "2"))


def test_a_fingerprints_tag_that_somebody_moved_is_refused(yard: Yard, to: str) -> None:
    first = yard.publish(to)
    change(yard)
    second = yard.publish(to)
    with Registry(parse(to), push=True) as registry:
        content = registry.manifest(first.fingerprint)[1]
        registry.put(content, oci.MANIFEST, second.fingerprint)
    with pytest.raises(PublishRefused, match="is immutable"):
        yard.publish(to)


def test_each_file_has_a_part_in_the_fingerprints_tag(yard: Yard) -> None:
    made = yard.bundle()
    tags = {push.fingerprint_tag(made, verified=True), push.fingerprint_tag(made, verified=False)}
    for number, file in enumerate(made.files):
        for other in (file._replace(digest="0" * 64), file._replace(media_type="x")):
            files = (*made.files[:number], other, *made.files[number + 1 :])
            tags.add(push.fingerprint_tag(made._replace(files=files), verified=True))
    assert len(tags) == 2 + 2 * len(made.files)


@pytest.mark.parametrize("tag", ["fp-1", "fp-12ab"])
def test_nobody_publishes_under_a_fingerprint(tag: str) -> None:
    with pytest.raises(SpecError, match="never moved"):
        push.target(parse(f"localhost/a:{tag}"))


def test_nobody_publishes_under_a_digest() -> None:
    with pytest.raises(SpecError, match="follows from"):
        push.target(parse(f"localhost/a@sha256:{'a' * 64}"))
    assert str(push.target(parse("localhost/a"))) == "localhost/a:latest"


def test_a_push_that_is_cut_off_leaves_no_tag(yard: Yard, proxy: Proxy, to: str) -> None:
    proxy.faults.append(Fault("PUT", "/v2/.*/blobs/.*", status=500, times=99))
    with pytest.raises(RegistryError):
        yard.publish(to)
    proxy.faults.clear()
    with Registry(parse(to)) as registry:
        assert registry.find("1") is None
    assert not list(yard.root.glob("pack-*"))
    yard.publish(to)


# The receipt.


def test_a_receipt_of_these_very_bytes_is_proof(yard: Yard) -> None:
    proof.check(yard.receipt(), yard.plan.specs.images["tool"], *yard.built())


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"ok": False, "error": "check failed\nmore"}, "the last boot failed: check failed\n"),
        ({"ok": False, "error": ""}, "the last boot failed"),
        ({"ok": "true"}, "the last boot failed"),
        ({"kernel": {"fingerprint": "0", "digest": "0"}}, "of another kernel than"),
        ({"rootfs": {"fingerprint": "0", "digest": "0"}}, "of another rootfs than"),
        ({"rootfs": None}, "cannot be used"),
        ({"rootfs": {}}, "cannot be used"),
    ],
)
def test_a_receipt_of_anything_else_is_none(yard: Yard, other: Any, match: str) -> None:
    path = yard.receipt(**other)
    with pytest.raises(PublishRefused, match=match) as caught:
        proof.check(path, yard.plan.specs.images["tool"], *yard.built())
    assert "unverified=1" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_damaged_receipt_is_none(yard: Yard, text: str) -> None:
    path = yard.receipt()
    path.write_text(text)
    with pytest.raises(PublishRefused, match="cannot be used"):
        proof.check(path, yard.plan.specs.images["tool"], *yard.built())


def test_no_receipt_is_no_proof(yard: Yard, tmp_path: Path) -> None:
    with pytest.raises(PublishRefused, match="it was not booted"):
        proof.check(tmp_path / "absent", yard.plan.specs.images["tool"], *yard.built())


def test_what_is_not_verified_is_marked_and_is_another_artifact(
    yard: Yard, elsewhere: Yard, to: str
) -> None:
    marked = yard.publish(to, verified=False)
    assert manifest(to).annotations == {"dev.fcbuild.unverified": "true"}
    assert not elsewhere.pull(to)[0].verified
    proven = yard.publish(to)
    assert proven.manifest.digest != marked.manifest.digest
    assert marked.fingerprint == f"{proven.fingerprint}-unverified"
    assert elsewhere.pull(to)[0].verified


# And back.


def test_an_empty_store_gets_the_same_bytes(yard: Yard, elsewhere: Yard, to: str) -> None:
    image = yard.root / "images/tool/image.toml"
    image.write_text(
        'kernel = "tiny"\n[rootfs]\noverlay = "64MiB"\n[[check]]\ntcp = { port = 7 }\n'
    )
    done = yard.publish(to)
    offer, kernel, rootfs = elsewhere.pull(to)
    assert offer.digest == done.manifest.digest
    assert str(offer.reference) == f"{to}@{offer.digest}"
    for here, there in zip((kernel, rootfs), yard.built(), strict=True):
        assert here.digests.items() <= there.digests.items()
        assert here.fingerprint != there.fingerprint  # it is known by its bytes
    assert set(rootfs.digests) == {"rootfs.ext4", "overlay.ext4"}
    assert rootfs.facts == FACTS
    assert rootfs.file("rootfs.ext4").stat().st_blocks * 512 < 2.5 * MIB
    assert [check.port for check in offer.spec.checks] == [7]  # type: ignore[union-attr]
    assert [*(elsewhere.store.root / "downloads").iterdir()] == []


@pytest.mark.parametrize("by", ["tag", "digest", "fingerprint"])
def test_it_is_found_by_tag_by_digest_and_by_fingerprint(
    yard: Yard, elsewhere: Yard, to: str, by: str
) -> None:
    done = yard.publish(to)
    reference = parse(to)
    source = {
        "tag": reference,
        "digest": reference._replace(tag=None, digest=done.digest),
        "fingerprint": reference.tagged(done.fingerprint),
    }[by]
    assert elsewhere.pull(str(source))[0].digest == done.manifest.digest


def test_what_is_in_the_store_is_not_fetched(
    yard: Yard, elsewhere: Yard, proxy: Proxy, to: str
) -> None:
    yard.publish(to)
    before = proxy.requests("GET", BLOBS)
    _, kernel, rootfs = yard.pull(to)  # where it was built
    assert (kernel, rootfs) == yard.built()
    assert proxy.requests("GET", BLOBS) == before + 1  # the document
    elsewhere.pull(to)
    before = proxy.requests("GET", BLOBS)
    elsewhere.pull(to)
    assert proxy.requests("GET", BLOBS) == before + 1


def test_the_next_pull_goes_on_where_one_was_cut(
    yard: Yard, elsewhere: Yard, proxy: Proxy, to: str
) -> None:
    yard.publish(to)
    big = max(manifest(to).layers, key=lambda layer: layer.size)
    proxy.faults.append(Fault(path=f".*{big.digest}", cut=600_000))
    proxy.faults.append(Fault(path=f".*{big.digest}", status=503, times=9))
    with pytest.raises(RegistryError):
        elsewhere.pull(to)
    assert elsewhere.store.objects("rootfs") == []
    assert not list((elsewhere.store.root / "stage").iterdir())
    proxy.faults.clear()
    elsewhere.pull(to)
    assert proxy.ranges.count("bytes=600000-") >= 1
    assert elsewhere.store.objects("rootfs")


def test_altered_bytes_do_not_get_into_the_store(
    yard: Yard, elsewhere: Yard, proxy: Proxy, to: str
) -> None:
    yard.publish(to)
    big = max(manifest(to).layers, key=lambda layer: layer.size)
    proxy.faults.append(Fault(path=f".*{big.digest}", flip=500_000, times=9))
    with pytest.raises(ArtifactError, match="other bytes"):
        elsewhere.pull(to)
    assert elsewhere.store.objects("rootfs") == []
    assert not list((elsewhere.store.root / "stage").iterdir())


def altered(to: str, tag: str, change: Callable[[Manifest], Manifest]) -> str:
    """Put what is published under another tag, changed."""
    with Registry(parse(to), push=True) as registry:
        registry.put(change(manifest(to)).document(), oci.MANIFEST, tag)
    return str(parse(to).tagged(tag))


def test_what_is_no_microvm_is_told_apart(yard: Yard, elsewhere: Yard, to: str) -> None:
    yard.publish(to)
    with Registry(parse(to), push=True) as registry:
        container(registry, "web")
        entry = manifest(to).entry("x86_64")._replace(architecture="s390x")
        registry.put(Index((entry,)).document(), oci.INDEX, "s390x")
        registry.put(Index(()).document(), oci.INDEX, "nothing")
    here = parse(to)
    with pytest.raises(ArtifactError, match="is a container image, not a microVM") as caught:
        elsewhere.pull(str(here.tagged("web")))
    assert f"FROM {here.tagged('web')}" in str(caught.value)
    for tag, match in (("s390x", "is for s390x, not for"), ("nothing", "is for nothing")):
        with pytest.raises(ArtifactError, match=match):
            elsewhere.pull(str(here.tagged(tag)))
    newer = altered(
        to, "v2", lambda m: m._replace(artifact_type="application/vnd.fcbuild.microvm.v2")
    )
    with pytest.raises(ArtifactError, match="newer form"):
        elsewhere.pull(newer)
    other = altered(to, "other", lambda m: m._replace(artifact_type="application/x"))
    with pytest.raises(ArtifactError, match="of another kind: application/x"):
        elsewhere.pull(other)
    with pytest.raises(RegistryError, match="no absent there"):
        elsewhere.pull(str(here.tagged("absent")))
    assert elsewhere.store.objects("kernel") == []


def test_manifest_and_document_have_to_agree(yard: Yard, elsewhere: Yard, to: str) -> None:
    yard.publish(to)

    def swapped(found: Manifest) -> Manifest:
        kernel, rootfs, *rest = found.layers
        a = {**kernel.annotations, oci.TITLE: "rootfs.ext4"}
        b = {**rootfs.annotations, oci.TITLE: "vmlinux"}
        layers = (kernel._replace(annotations=a), rootfs._replace(annotations=b), *rest)
        return found._replace(layers=layers)

    for tag, how in (
        ("swapped", swapped),
        ("less", lambda found: found._replace(layers=found.layers[:1])),
    ):
        with pytest.raises(ArtifactError, match="differ about"):
            elsewhere.pull(altered(to, tag, how))


def test_a_newer_document_is_said_to_be_one(yard: Yard, elsewhere: Yard, to: str) -> None:
    yard.publish(to)
    with Registry(parse(to), push=True) as registry:
        text = json.loads(registry.read(manifest(to).config))
        content = json.dumps({**text, "schema": 2}).encode()
        config = oci.describe(bundle.DOCUMENT, content)
        registry.push(config, content)
    newer = altered(to, "newer", lambda found: found._replace(config=config))
    with pytest.raises(ArtifactError, match="schema 2"):
        elsewhere.pull(newer)


def test_what_others_say_of_its_origin_does_not_pass_for_what_is_built(
    yard: Yard, elsewhere: Yard, to: str
) -> None:
    yard.publish(to)
    elsewhere.pull(to)
    for recipe in (elsewhere.plan.kernel("tiny"), elsewhere.plan.rootfs("tool")):
        assert elsewhere.store.find(recipe) is None


def test_an_image_for_another_machine_is_taken_when_there_is_no_other(
    yard: Yard, elsewhere: Yard, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aarch64(yard)
    yard.publish(to, "arm")
    assert elsewhere.pull(to)[0].spec.arch == "aarch64"
    yard.publish(to)
    assert elsewhere.pull(to)[0].spec.arch == "x86_64"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert elsewhere.pull(to)[0].spec.arch == "aarch64"


# With others' tools.


def skopeo(*args: str) -> str:
    done = subprocess.run(
        ["skopeo", *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_copies_it_and_it_is_the_same(
    yard: Yard, elsewhere: Yard, hub: Hub, to: str
) -> None:
    aarch64(yard)
    yard.publish(to)
    done = yard.publish(to, "arm")
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    copy = beside(to, "-copy")
    skopeo("copy", "--all", "--preserve-digests", *plain, f"docker://{to}", f"docker://{copy}")
    assert elsewhere.pull(f"{copy}@{done.digest}")[0].spec.name == "tool"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{copy}")
    assert hashlib.sha256(raw.encode()).hexdigest() == done.digest.partition(":")[2]
    layout = yard.root / "layout"
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{to}", f"oci:{layout}:1")
    back = beside(to, "-back")
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{back}")
    assert elsewhere.pull(back)[0].spec.name == "tool"


def test_curl_and_zstd_fetch_it(yard: Yard, hub: Hub, to: str) -> None:
    yard.publish(to)
    layer = manifest(to).layer("vmlinux")
    assert layer
    reference = parse(to)
    url = f"http://{reference.registry}/v2/{reference.repository}/blobs/{layer.digest}"
    curl = subprocess.run(["curl", "-sSf", url], capture_output=True, timeout=60, check=True)
    assert f"sha256:{hashlib.sha256(curl.stdout).hexdigest()}" == layer.digest
    plain = subprocess.run(
        ["zstd", "-dc"], input=curl.stdout, capture_output=True, timeout=60, check=True
    ).stdout
    assert plain == yard.built()[0].file("vmlinux").read_bytes()
