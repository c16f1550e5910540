"""What is exported as an OCI layout is what publishing pushes, and needs no fcbuild for that."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fcbuild.publish import export
from fcbuild.store import Store
from tests.publish.yard import Yard, at
from tests.registry import Registry as Hub


@pytest.fixture
def yard(checkout: Path, tmp_path: Path) -> Yard:
    (checkout / "images/tool/image.toml").write_text('kernel = "tiny"\n')
    return Yard(checkout, Store(tmp_path / "store"))


def test_a_layout_has_the_digests_of_what_is_published(
    yard: Yard, hub: Hub, repository: str, tmp_path: Path
) -> None:
    export.write(yard.bundle(), "oci-layout", tmp_path / "layout")
    (named,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    done = yard.publish(at(hub.host, repository))
    assert named["digest"] == done.digest
    manifest = done.manifest.digest.removeprefix("sha256:")
    assert (tmp_path / "layout/blobs/sha256" / manifest).exists()


def test_skopeo_brings_a_layout_to_a_registry_and_it_is_pulled_from_there(
    yard: Yard, hub: Hub, repository: str, tmp_path: Path
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    there = at(hub.host, repository)
    export.write(yard.bundle(), "oci-layout", tmp_path / "layout")
    subprocess.run(
        [
            *("skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false"),
            *(f"oci:{tmp_path}/layout:latest", f"docker://{there}"),
        ],
        check=True,
        timeout=120,
    )
    elsewhere = Yard(yard.root, Store(tmp_path / "elsewhere"))
    offer, kernel, rootfs = elsewhere.pull(there)
    assert offer.spec.name == "tool"
    ours = yard.built()
    assert (kernel.digests["vmlinux"], rootfs.digests) == (
        ours[0].digests["vmlinux"],
        ours[1].digests,
    )
