"""fsck: whatever is not as it was built is found, dropped, and built again when it is needed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import fsck, tasks
from fcbuild.errors import StoreError
from fcbuild.fingerprint import digest
from fcbuild.fsck import Finding
from fcbuild.recipes import Recipe
from fcbuild.store import Artifact, Stage, Store, link, manifest

RECIPE = Recipe("rootfs", "web", {"n": 1})
OTHER = Recipe("rootfs", "other", {"n": 2})
FILES = ["rootfs.ext4", "manifest.json", "inputs.json", "build.log"]


def build(stage: Stage) -> None:
    stage.file("rootfs.ext4").write_bytes(b"content" * 100)
    stage.log.write(b"packing\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for recipe in (RECIPE, OTHER):
        made(tmp_path / "store", recipe)
    return tmp_path / "store"


def made(root: Path, recipe: Recipe = RECIPE) -> Artifact:
    """Build an object and let go of it, as a process that has ended."""
    store = Store(root)
    artifact, _ = store.obtain(recipe, build)
    for lock in store._held.values():
        os.close(lock)
    store._held.clear()
    return artifact


def check(root: Path, *, dry_run: bool = False) -> list[Finding]:
    return fsck.check(Store(root), root.parent / "artifacts", dry_run=dry_run)


def flip(path: Path) -> None:
    """Change one bit, and neither size nor times, as a failing disk does."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size - 1)


def remove(path: Path) -> None:
    path.parent.chmod(0o755)
    path.unlink()


def replace(path: Path) -> None:
    remove(path)
    path.mkdir()


def test_a_store_as_it_was_built_is_clean(root: Path) -> None:
    assert check(root) == []
    assert fsck.check(Store(root / "nosuch"), root, dry_run=False) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, remove, replace])
def test_damage_is_found_and_the_object_dropped(
    root: Path, damage: Callable[[Path], None], name: str
) -> None:
    artifact = made(root)
    damage(artifact.file(name))
    shown = check(root, dry_run=True)
    assert artifact.directory.exists()
    (finding,) = check(root)
    assert shown[0].what == finding.what
    assert finding.what.startswith("rootfs:") and RECIPE.short in finding.what
    assert name in finding.wrong
    assert finding.done == "dropped, to be built again when it is needed"
    assert not artifact.directory.exists()
    assert check(root) == []
    assert Store(root).obtain(RECIPE, build)[1] == "built"
    assert Store(root).find(OTHER)


def test_an_object_of_an_older_fcbuild_is_clean_and_its_damage_is_found(root: Path) -> None:
    artifact = made(root)
    artifact.directory.chmod(0o755)
    document = json.loads(artifact.file("manifest.json").read_bytes())
    del document["records"], document["digest"]
    artifact.file("manifest.json").chmod(0o644)
    artifact.file("manifest.json").write_text(json.dumps(document))
    assert check(root) == []
    assert Store(root).obtain(RECIPE, build)[1] == "stored"
    remove(artifact.file("build.log"))
    assert [finding.wrong for finding in check(root)] == ["build.log is missing"]


@pytest.mark.parametrize("as_directory", [False, True])
def test_a_foreign_file_is_removed_and_the_object_stays(root: Path, as_directory: bool) -> None:
    artifact = made(root)
    artifact.directory.chmod(0o755)
    if as_directory:
        artifact.file("extra").mkdir()
        (artifact.file("extra") / "file").touch()
    else:
        artifact.file("extra").touch()
    artifact.directory.chmod(0o555)
    (finding,) = check(root)
    assert (finding.wrong, finding.done) == ("does not belong there", "removed")
    assert not artifact.file("extra").exists()
    assert artifact.directory.stat().st_mode & 0o777 == 0o555
    assert Store(root).obtain(RECIPE, build)[1] == "stored"
    assert check(root) == []


@pytest.mark.parametrize("place", ["objects/note", "objects/rootfs/note", "objects/rootfs/dir/x"])
def test_what_is_no_object_is_removed(root: Path, place: str) -> None:
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).touch()
    assert len(check(root)) == 1
    assert check(root) == []
    assert len(Store(root).directories()) == 2


def test_damaged_and_foreign_downloads_are_dropped(root: Path) -> None:
    downloads = root / "downloads"
    (downloads / "fetch-under-way").mkdir(parents=True)
    good = downloads / hashlib.sha256(b"x").hexdigest()
    good.write_bytes(b"x")
    (downloads / ("0" * 64)).write_bytes(b"y")
    (downloads / "notes.txt").write_bytes(b"z")
    found = check(root)
    assert [finding.what for finding in found] == ["download 000000000000", "downloads/notes.txt"]
    assert sorted(downloads.iterdir()) == sorted([good, downloads / "fetch-under-way"])
    assert check(root) == []


def test_links_to_what_is_not_there_are_removed(root: Path) -> None:
    artifact = made(root)
    artifacts = root.parent / "artifacts"
    link(artifact, "rootfs.ext4", artifacts / "images" / "web.ext4")
    assert check(root) == []
    flip(artifact.file("rootfs.ext4"))
    found = check(root)
    assert [finding.what for finding in found] == [
        f"rootfs:web {RECIPE.short}",
        "artifacts/images/web.ext4",
    ]
    assert not list((artifacts / "images").iterdir())


def test_a_damaged_object_in_use_is_told_and_left(root: Path) -> None:
    user = Store(root)
    user.hold(RECIPE)
    flip(made(root).file("rootfs.ext4"))
    (finding,) = check(root)
    assert finding.done == "in use, and left: run doit fsck again"


def test_what_is_read_for_a_boot_is_verified_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def reading(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(manifest, "digest", reading)
    # What was just built was read then.
    assert Store(root).need(RECIPE)
    assert not read
    for note in (root / "uses").iterdir():
        note.unlink()
    assert Store(root).need(RECIPE)
    assert Store(root).need(RECIPE)
    assert read.count("rootfs.ext4") == 1
    # A build that only needs it to be there does not read it.
    for note in (root / "uses").iterdir():
        note.write_text("[")
    read.clear()
    assert Store(root).obtain(RECIPE, build)[1] == "stored"
    assert not read
    flip(made(root).file("rootfs.ext4"))
    with pytest.raises(StoreError, match=r"rootfs:web \w+ in the store is damaged") as caught:
        Store(root).need(RECIPE)
    assert "doit fsck" in str(caught.value.hint)
    # And a build that stands on it makes it anew.
    assert Store(root).obtain(RECIPE, build, verify=True)[1] == "built"
    assert Store(root).need(RECIPE)


def test_the_command_ends_with_1_when_there_was_something(
    root: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["doit"])
    for module in ("project", "commands", "command_line"):
        monkeypatch.setattr(f"fcbuild.tasks.{module}.get_var", lambda name: None)
    monkeypatch.setenv("FCBUILD_STORE", str(root))
    project = tasks.Project(checkout, default_image="web")

    def run(**options: Any) -> Any:
        (action,) = project.fsck(**{"dry_run": False, "as_json": False, **options})["actions"]
        return action()

    assert run() is None
    assert "as it was built" in capsys.readouterr().out
    flip(made(root).file("rootfs.ext4"))
    assert run(dry_run=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["findings"][0]["wrong"] == "rootfs.ext4 has other bytes than were built"
    failed = run()
    assert "1 thing was not as built" in str(failed)
    said = capsys.readouterr().out
    assert said == (
        f"rootfs:web {RECIPE.short}: rootfs.ext4 has other bytes than were built: dropped, to be "
        "built again when it is needed\n"
    )
    assert run() is None


def test_what_would_be_done_is_shown() -> None:
    out = io.StringIO()
    fsck.show([Finding("a", "b", "removed")], as_json=False, dry_run=True, out=out)
    assert out.getvalue() == "a: b: would be removed\n"


def test_a_store_of_which_only_objects_were_kept_is_repaired(root: Path) -> None:
    """As a cache of CI may have it."""
    for part in ("stage", "locks", "uses", "logs", "roots"):
        shutil.rmtree(root / part)
    artifact = Store(root).find(RECIPE)
    assert artifact
    flip(artifact.file("rootfs.ext4"))
    assert len(check(root)) == 1
    assert check(root) == []
