"""Tags of a real registry: locked, moved, built by digest, refused in CI. And the locked base."""

from __future__ import annotations

import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.build import base
from fcbuild.plan import Plan
from fcbuild.store import Store
from tests import registry
from tests.registry import Registry
from tests.workspace import ROOT, STORE, Workspace

pytestmark = pytest.mark.engine


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Registry]:
    directory = tmp_path / "registry"
    directory.mkdir()
    with registry.serve(directory) as running:
        yield running


def content(tag: str, path: str) -> str:
    """Return the text of a file of an image that cannot run."""
    created = subprocess.run(
        ["docker", "create", tag, "none"], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        command = f"docker cp {created}:{path} - | tar -xO"
        return subprocess.run(
            ["sh", "-c", command], check=True, capture_output=True, text=True
        ).stdout
    finally:
        subprocess.run(["docker", "rm", created], check=True, capture_output=True)


def built(tag_prefix: str) -> list[str]:
    listed = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", tag_prefix]
    return subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()


def test_a_tag_is_locked_and_stays_what_it_was(checkout: Workspace, hub: Registry) -> None:
    name = f"locked-{uuid.uuid4().hex[:8]}"  # no engine has built it before
    tag = hub.push("tiny:1", version=f"one {name}")
    checkout.image(name, "", f'FROM {tag}\nCOPY own /\nCMD ["/none"]\n', own="")
    document = checkout.root / "images" / "lock.toml"
    before = document.read_text()

    ci = checkout.doit(f"_image:{name}", env={"CI": "true"})
    assert ci.status == 1
    assert f"images/{name}/Dockerfile:1: {tag} is not locked\n  hint: doit lock" in ci.output
    warned = checkout.doit(f"_image:{name}")
    assert warned.status == 0, warned.output
    assert warned.output.count(f"warning: images/{name}/Dockerfile:1: {tag} is not locked") == 1
    assert checkout.doit(f"_image:{name}", env={"CI": "1"}).status == 1, "built is not locked"

    shown = checkout.doit("lock", f"image={name}", "--check")
    assert shown.status == 1 and f"{tag}  locked: sha256:" in shown.output
    assert document.read_text() == before
    locked = checkout.doit("lock", f"image={name}")
    assert locked.status == 0, locked.output
    assert f"{tag}  locked: sha256:" in locked.output
    assert set(before.splitlines()) < set(document.read_text().splitlines()), "others are kept"

    hub.push("tiny:1", version="two")  # the tag moves
    pinned = checkout.doit(f"_image:{name}", env={"CI": "true"})
    assert pinned.status == 0 and "warning" not in pinned.output, pinned.output
    images = built(f"fcbuild/{name}")
    assert len(images) == 2, "the lock is an input"
    assert [content(image, "/version") for image in images] == [f"one {name}"] * 2

    moved = checkout.doit("lock", f"image={name}", "--check")
    assert moved.status == 1
    assert f"\n{tag}  sha256:" in "\n" + moved.output and "… -> sha256:" in moved.output
    assert checkout.doit("lock", f"image={name}").status == 0
    again = checkout.doit("lock", f"image={name}", "--check")
    assert (again.status, again.output) == (0, "nothing moved\n")
    assert checkout.doit(f"_image:{name}").status == 0
    (newest,) = set(built(f"fcbuild/{name}")) - set(images)
    assert content(newest, "/version") == "two"
    subprocess.run(["docker", "rmi", *images, newest], check=True, capture_output=True)


def test_a_registry_that_is_silent_is_named_and_its_entry_stays(
    checkout: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "registry").mkdir()
    with registry.serve(tmp_path / "registry") as hub:
        tag = hub.push("tiny:1", version="one")
        checkout.image("app", "", f'FROM {tag}\nCMD ["/none"]\n')
        assert checkout.doit("lock", "image=app").status == 0
        missing = hub.reference("nosuch:1")
        checkout.image("other", "", f'FROM {missing}\nCMD ["/none"]\n')
        result = checkout.doit("lock", "image=other,app")
        assert result.status == 1
        assert f"{missing}: no registry tells its digest" in result.output
    document = (checkout.root / "images" / "lock.toml").read_text()
    assert tag in document and missing not in document
    result = checkout.doit("lock", "image=app")
    assert result.status == 1
    assert f"nothing moved\nfailed   lock\nerror: {tag}: no registry" in result.output
    assert (checkout.root / "images" / "lock.toml").read_text() == document


def test_the_locked_base_is_what_its_lock_says_and_nothing_of_where_it_was_made() -> None:
    plan = Plan(spec.load(ROOT))
    recipe = plan.container("debian-base")
    locked = plan.locked(recipe)
    assert locked and plan.locked(plan.toolchain), "the checkout's own lock is complete"
    assert not [line for name in plan.specs.images for line in plan.unlocked(name)]
    asked = plan.bootstrap(recipe)
    artifact, _ = Store(STORE).obtain(
        recipe, lambda stage: base.build(recipe, asked, locked, stage, strict=True)
    )
    tar = artifact.file(base.TAR)
    assert base.installed(tar) == locked.packages
    with tarfile.open(tar) as archive:
        found = {member.name.removeprefix("."): member for member in archive}
        sources = archive.extractfile("./etc/apt/sources.list")
        assert sources
        assert all(line.startswith(b"deb http://") for line in sources)
    assert max(member.mtime for member in found.values()) == locked.time
    machine = {"/etc/hostname", "/etc/resolv.conf", "/var/lib/dbus/machine-id"}
    changing = {"/var/cache/ldconfig/aux-cache", "/var/cache/apt/pkgcache.bin"}
    assert not (machine | changing) & found.keys()
    for directory in ("/var/log", "/var/lib/apt/lists", "/var/cache/apt/archives", "/run", "/tmp"):
        inside = [m for name, m in found.items() if name.startswith(directory + "/") and m.isfile()]
        assert [member.name for member in inside if member.size] == []
