"""What an engine gets to load: a tar of a layer, a config and a manifest."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from fcbuild.build import image_archive


def test_an_archive_holds_the_layer_and_says_what_it_is_for(tmp_path: Path) -> None:
    layer = tmp_path / "rootfs.tar"
    layer.write_bytes(bytes(range(256)) * 5)
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    config = {"Cmd": ["bash"]}

    def made() -> bytes:
        parts = image_archive.write(layer, digest, "fcbuild/x:1", arch="arm64", config=config)
        return b"".join(parts)

    with tarfile.open(fileobj=io.BytesIO(made()), mode="r:") as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["fcbuild/x:1"]
    (name,) = manifest["Layers"]
    assert files[name] == layer.read_bytes()
    about = json.loads(files[manifest["Config"]])
    assert manifest["Config"] == hashlib.sha256(files[manifest["Config"]]).hexdigest() + ".json"
    assert (about["os"], about["architecture"], about["config"]) == ("linux", "arm64", config)
    assert about["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    assert made() == made()
