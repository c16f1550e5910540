"""The documents of artifacts: one text for one content, strict with what comes from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fcbuild.errors import ArtifactError
from fcbuild.publish import oci
from fcbuild.publish.oci import Descriptor, Index, Manifest

KERNEL = "application/k+zstd"
DIGEST = "sha256:" + "12" * 32


def layer(title: str = "vmlinux", **annotations: str) -> Descriptor:
    return Descriptor(KERNEL, DIGEST, 3, {oci.TITLE: title, **annotations})


CONFIG = oci.describe("application/c", b"{}")
MANIFEST = Manifest(oci.MICROVM, CONFIG, (layer(),), {"a": "b"}, oci.describe(oci.MANIFEST, b"x"))


def test_a_manifest_is_written_and_read_alike() -> None:
    assert oci.read(MANIFEST.document(), "", what="it") == MANIFEST
    assert MANIFEST.document() == MANIFEST.document()


def test_an_index_is_written_and_read_alike() -> None:
    index = Index((MANIFEST.entry("x86_64"), MANIFEST.descriptor()))
    assert oci.read(index.document(), "", what="it") == index
    assert index.entry("x86_64") == MANIFEST.entry("x86_64")
    assert index.entry("aarch64") is None


def test_what_is_written_has_what_the_specification_wants() -> None:
    document = json.loads(MANIFEST.document())
    assert document["schemaVersion"] == 2
    assert document["mediaType"] == oci.MANIFEST
    assert document["artifactType"] == oci.MICROVM
    assert document["config"]["size"] == 2
    assert [*document] == [
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "subject"),
        "annotations",
    ]
    (entry,) = json.loads(Index((MANIFEST.entry("aarch64"),)).document())["manifests"]
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    (listed,) = json.loads(Index((MANIFEST.descriptor(),)).document())["manifests"]
    assert (listed["artifactType"], listed["annotations"]) == (oci.MICROVM, {"a": "b"})
    assert "subject" not in json.loads(MANIFEST._replace(subject=None).document())


def test_an_entry_takes_the_place_of_that_of_its_architecture_only() -> None:
    arm = MANIFEST.entry("aarch64")
    old, new = layer()._replace(architecture="amd64"), MANIFEST.entry("x86_64")
    assert Index((arm, old)).with_entry(new).manifests == (new, arm)
    assert Index((old,)).with_entry(arm).manifests == (old, arm)


def changed(**parts: Any) -> bytes:
    return json.dumps({**json.loads(MANIFEST.document()), **parts}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b" " * (oci.MAX_BYTES + 1),
        changed(schemaVersion=1),
        changed(mediaType="text/plain"),
        changed(mediaType=["x"]),
        changed(config=None),
        changed(layers={}),
        changed(layers=[1]),
        changed(layers=[{"mediaType": "x", "digest": DIGEST, "size": "1"}]),
        changed(layers=[{"mediaType": "x", "digest": DIGEST, "size": True}]),
        changed(layers=[{"mediaType": "x", "digest": DIGEST, "size": -1}]),
        changed(layers=[{"mediaType": "x", "digest": "sha256:../../x", "size": 1}]),
        changed(layers=[{"mediaType": "x", "digest": "md5:12", "size": 1}]),
        changed(layers=[json.loads(MANIFEST.document())["config"]] * (oci.MAX_LAYERS + 1)),
        changed(annotations={"a": 1}),
        changed(annotations=[]),
        changed(artifactType=1),
        changed(subject=[]),
    ],
    ids=range(21),
)
def test_what_is_not_a_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^it"):
        oci.read(content, oci.MANIFEST, what="it")


def test_a_media_type_may_be_only_in_the_answers_header() -> None:
    document = json.loads(MANIFEST.document())
    del document["mediaType"]
    content = json.dumps(document).encode()
    assert oci.read(content, f"{oci.MANIFEST}; charset=utf-8", what="it") == MANIFEST


@pytest.mark.parametrize("title", ["", "..", "a/b", "/a", ".hidden", "a\0", "a\n", "x" * 200])
def test_a_title_that_is_no_files_name_is_refused(title: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be a file's name"):
        oci.titles(MANIFEST._replace(layers=(layer(title),)), what="it")


def test_a_title_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ArtifactError):
        oci.titles(MANIFEST._replace(layers=(layer("a"), layer("a"))), what="it")


def test_what_a_layer_holds_is_in_its_annotations() -> None:
    held = layer(**{oci.PLAIN_DIGEST: DIGEST, oci.PLAIN_SIZE: "12"})
    assert oci.plain(held, what="it") == (DIGEST, 12)
    small = held._replace(media_type="application/x")
    assert oci.plain(small, what="it") == (DIGEST, 3)


@pytest.mark.parametrize("size", ["", "-1", "1e9", "01", "1" * 20])
def test_a_layer_that_does_not_say_what_it_holds_is_refused(size: str) -> None:
    held = layer(**{oci.PLAIN_DIGEST: DIGEST, oci.PLAIN_SIZE: size})
    with pytest.raises(ArtifactError):
        oci.plain(held, what="it")
