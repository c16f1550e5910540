"""An image as files for others' tools."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import FcBuildError, InputChanged, SpecError
from fcbuild.publish import bundle, export, oci, pack
from fcbuild.publish.bundle import Bundle, File

HOLE = 4 << 20


@pytest.fixture
def image(tmp_path: Path) -> Bundle:
    """A bundle of files that are there: a kernel, and a disk that is mostly a hole."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "vmlinux").write_bytes(os.urandom(100_001))
    with (store / "rootfs.ext4").open("wb") as disk:
        disk.truncate(HOLE)
        disk.write(b"content")
    for path in store.iterdir():
        path.chmod(0o444)

    def stored(title: str, media_type: str) -> File:
        data = (store / title).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        return File(title, media_type, store / title, 0o644, found, len(data))

    def made(title: str, media_type: str, data: bytes, mode: int) -> File:
        return File(title, media_type, data, mode, hashlib.sha256(data).hexdigest(), len(data))

    document = b'{"schema": 1}\n'
    return Bundle(
        "web",
        "x86_64",
        (
            stored("vmlinux", bundle.KERNEL),
            stored("rootfs.ext4", bundle.DISK),
            made("vm.json", bundle.VM, b"{}\n", 0o644),
            made("boot.sh", bundle.SCRIPT, b"#!/bin/sh\n", 0o755),
            made("fcbuild.json", bundle.DOCUMENT, document, 0o644),
        ),
        document,
    )


def written(image: Bundle, form: str, to: Path) -> Path:
    export.write(image, form, to)
    assert [*to.parent.glob(".export-*")] == []
    return to


def content(file: File) -> bytes:
    return file.source if isinstance(file.source, bytes) else file.source.read_bytes()


def test_a_directory_has_the_files_and_disks_keep_their_holes(
    image: Bundle, tmp_path: Path
) -> None:
    at = written(image, "dir", tmp_path / "out")
    assert {path.name for path in at.iterdir()} == {file.title for file in image.files}
    for file in image.files:
        path = at / file.title
        assert path.read_bytes() == content(file)
        assert path.stat().st_mode & 0o7777 == file.mode
    assert (at / "rootfs.ext4").stat().st_blocks * 512 < HOLE


def test_a_tar_has_the_files_below_the_images_name(image: Bundle, tmp_path: Path) -> None:
    with tarfile.open(written(image, "tar", tmp_path / "web.tar")) as tar:
        assert tar.getnames() == ["web", *(f"web/{file.title}" for file in image.files)]
        for file in image.files:
            entry = tar.getmember(f"web/{file.title}")
            assert (entry.mode, entry.uid, entry.gid, entry.uname) == (file.mode, 0, 0, "")
            data = tar.extractfile(entry)
            assert data and data.read() == content(file)


@pytest.mark.parametrize("form", ["tar", "containerdisk"])
def test_an_archive_is_the_same_each_time(
    image: Bundle, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(image, form, tmp_path / "a")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    old = os.umask(0o077)
    try:
        second = written(image, form, tmp_path / "b")
    finally:
        os.umask(old)
    assert first.read_bytes() == second.read_bytes()


def blob(at: Path, descriptor: Any) -> bytes:
    digest = str(descriptor["digest"]).removeprefix("sha256:")
    data = (at / "blobs/sha256" / digest).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(data) == descriptor["size"]
    return data


def test_a_layout_has_what_publishing_pushes(image: Bundle, tmp_path: Path) -> None:
    at = written(image, "oci-layout", tmp_path / "out")
    assert json.loads((at / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (named,) = json.loads((at / "index.json").read_text())["manifests"]
    assert named["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    index = oci.read(blob(at, named), named["mediaType"], what="the index")
    assert isinstance(index, oci.Index)
    entry = index.entry("x86_64")
    assert entry is not None
    text = blob(at, entry.document())
    manifest = oci.read(text, entry.media_type, what="the manifest")
    assert isinstance(manifest, oci.Manifest)
    assert manifest.artifact_type == oci.MICROVM
    assert blob(at, manifest.config.document()) == image.document
    layers = oci.titles(manifest, what="the manifest")
    assert [*layers] == [file.title for file in image.files]
    for file in image.files:
        layer = layers[file.title]
        data = blob(at, layer.document())
        assert oci.plain(layer, what="") == (f"sha256:{file.digest}", file.size)
        if layer.media_type.endswith("+zstd"):
            (tmp_path / "packed").write_bytes(data)
            pack.expand(
                tmp_path / "packed", tmp_path / file.title, digest=file.digest, size=file.size
            )
        else:
            assert data == content(file)
    assert {path.name for path in at.iterdir()} == {"blobs", "index.json", "oci-layout"}
    # The document is the config and a layer, and one blob.
    assert len([*(at / "blobs/sha256").iterdir()]) == len(image.files) + 2


def test_a_containerdisk_is_a_container_image_with_one_disk(image: Bundle, tmp_path: Path) -> None:
    with tarfile.open(written(image, "containerdisk", tmp_path / "disk.tar")) as tar:
        members = {entry.name: entry for entry in tar}

        def read(name: str) -> bytes:
            data = tar.extractfile(members[name])
            assert data
            return data.read()

        def blob_of(digest: str) -> bytes:
            data = read(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
            return data

        (named,) = json.loads(read("index.json"))["manifests"]
        manifest = json.loads(blob_of(named["digest"]))
        config = json.loads(blob_of(manifest["config"]["digest"]))
        assert (config["architecture"], config["os"]) == ("amd64", "linux")
        (described,) = manifest["layers"]
        assert config["rootfs"]["diff_ids"] == [described["digest"]]
        layer = blob_of(described["digest"])
        (docker,) = json.loads(read("manifest.json"))
        assert docker["RepoTags"] == ["web-containerdisk:latest"]
        assert json.loads(read(docker["Config"])) == config
        assert read(docker["Layers"][0]) == layer
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = {entry.name: (entry.mode, entry.uid, entry.size) for entry in tar}
    assert found == {
        "boot": (0o755, 0, 0),
        "boot/vmlinux": (0o644, 0, 100_001),
        "boot/fcbuild.json": (0o644, 0, len(image.document)),
        "disk": (0o755, 107, 0),
        "disk/rootfs.img": (0o440, 107, HOLE),
    }


def test_what_is_there_is_not_touched(image: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link", "store"):
        with pytest.raises(SpecError, match=f"{name} is there already"):
            export.write(image, "dir", tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("none/out", "none is not a directory"),
        ("file/out", "file is not a directory"),
        ("x" * 300, "cannot be written: File name too long"),
        ("y" * 300 + "/out", "is not a directory"),
    ],
)
@pytest.mark.parametrize("form", export.FORMATS)
def test_a_path_that_cannot_be_is_refused(
    image: Bundle, tmp_path: Path, to: str, said: str, form: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FcBuildError, match=said):
        export.write(image, form, tmp_path / to)
    assert [*tmp_path.glob(".export-*")] == []


@pytest.mark.parametrize("form", export.FORMATS)
def test_a_file_that_is_not_as_it_was_leaves_nothing(
    image: Bundle, tmp_path: Path, form: str
) -> None:
    kernel = image.files[0]
    assert isinstance(kernel.source, Path)
    kernel.source.unlink()
    if form != "dir":  # which is of cp's bytes
        kernel.source.write_bytes(b"shorter")
    with pytest.raises((FcBuildError, InputChanged)):
        export.write(image, form, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_an_interrupt_leaves_nothing(
    image: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for form, inner in (("dir", "microvm.copy_disk"), ("oci-layout", "layout.pack.pack")):
        monkeypatch.setattr(f"fcbuild.publish.export.{inner}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export.write(image, form, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
