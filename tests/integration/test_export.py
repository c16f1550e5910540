"""What is exported, taken by others' tools: the container engine, and skopeo."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.plan import Plan
from fcbuild.publish import bundle, export
from fcbuild.publish.bundle import Bundle
from tests.workspace import Workspace, checkout, engine

__all__ = ["checkout", "engine"]

pytestmark = pytest.mark.engine


@pytest.fixture
def hello(checkout: Workspace) -> Bundle:
    assert checkout.doit("build", "image=hello").status == 0
    from fcbuild.store import Store

    return bundle.built(Plan(spec.load(checkout.root)), Store(checkout.store), "hello")


def said(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*argv: str | Path) -> str:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    return said("skopeo", *argv)


def test_the_engine_loads_a_containerdisk(hello: Bundle, tmp_path: Path) -> None:
    archive = tmp_path / "disk.tar"
    export.write(hello, "containerdisk", archive)
    name = "hello-containerdisk:latest"
    assert name in said("docker", "load", "-i", archive)
    try:
        container = said("docker", "create", name, "/none").strip()
        try:
            said("docker", "cp", "-a", f"{container}:/disk/rootfs.img", tmp_path)
        finally:
            said("docker", "rm", container)
    finally:
        said("docker", "image", "rm", name)
    assert (tmp_path / "rootfs.img").read_bytes() == hello.stored["rootfs.ext4"].read_bytes()


def test_skopeo_takes_a_containerdisk_for_a_container_image(hello: Bundle, tmp_path: Path) -> None:
    archive = tmp_path / "disk.tar"
    export.write(hello, "containerdisk", archive)
    found: Any = json.loads(skopeo("inspect", f"oci-archive:{archive}"))
    assert (found["Architecture"], found["Os"]) == ("amd64", "linux")
    assert len(found["Layers"]) == 1


def test_skopeo_copies_a_layout_as_it_is(hello: Bundle, tmp_path: Path) -> None:
    at, copy = tmp_path / "layout", tmp_path / "copy"
    export.write(hello, "oci-layout", at)
    skopeo("copy", "--all", f"oci:{at}:latest", f"oci:{copy}:latest")
    ours, theirs = ({path.name for path in (one / "blobs/sha256").iterdir()} for one in (at, copy))
    assert ours == theirs


def test_a_tar_is_one_for_tar_too(hello: Bundle, tmp_path: Path) -> None:
    archive = tmp_path / "hello.tar"
    export.write(hello, "tar", archive)
    said("tar", "-xf", archive, "-C", tmp_path)
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == len(hello.files) + 1
    for title, source in hello.stored.items():
        assert (tmp_path / "hello" / title).read_bytes() == source.read_bytes()
