"""The store: an object appears whole or not at all, whatever happens while it is built."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild import store as stores
from fcbuild.errors import FcBuildError, StoreError
from fcbuild.fingerprint import canonical, digest
from fcbuild.recipes import Recipe
from fcbuild.store import Artifact, Stage, Store, link, links_to, locks, manifest

RECIPE = Recipe("init", "guest", {"sources": {"a": "1"}})


def build(stage: Stage) -> None:
    stage.file("init").write_bytes(b"program")
    stage.file("init").chmod(0o700)
    stage.file("map").write_bytes(b"")
    (stage.scratch / "junk").touch()
    stage.log.write(b"compiled\n")
    stage.facts["size"] = 7


def never(stage: Stage) -> None:
    pytest.fail("built again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def objects(store: Store) -> list[Path]:
    return list((store.root / "objects").glob("*/*"))


def stages(store: Store) -> list[Path]:
    return list((store.root / "stage").iterdir())


def assert_whole(store: Store) -> None:
    """Whatever is in the store can be used."""
    for directory in objects(store):
        manifest = json.loads((directory / "manifest.json").read_text())
        for name, entry in manifest["files"].items():
            assert digest(directory / name) == entry["sha256"]
        assert {"build.log", "inputs.json"} <= {path.name for path in directory.iterdir()}


def test_an_object_is_built_once_and_stored_afterwards(store: Store) -> None:
    assert store.find(RECIPE) is None
    artifact, state = store.obtain(RECIPE, build)
    assert state == "built"
    assert artifact.file("init").read_bytes() == b"program"
    assert artifact.digests == {
        "init": digest(artifact.file("init")),
        "map": digest(artifact.file("map")),
    }
    assert artifact.facts == {"size": 7}
    assert store.obtain(RECIPE, never) == (artifact, "stored")
    assert store.need(RECIPE) == artifact
    assert Store(store.root).find(RECIPE) == artifact
    assert not stages(store)
    assert_whole(store)


def test_an_object_is_found_by_what_it_holds(store: Store) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    wanted = {"init": artifact.digests["init"]}
    assert store.holding("init", wanted) == artifact
    assert store.holding("init", wanted, {"size": 7}) == artifact
    assert store.holding("init", wanted, {"size": 8}) is None
    assert store.holding("init", {"init": "0" * 64}) is None
    assert store.holding("init", {"other": artifact.digests["init"]}) is None
    assert store.holding("agent", wanted) is None
    assert not store.drop(artifact.directory)  # it is held


def test_an_object_that_is_damaged_holds_nothing(store: Store) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    path = artifact.file("init")
    path.chmod(0o700)
    path.write_bytes(b"tampere")
    assert store.holding("init", {"init": artifact.digests["init"]}) is None


def test_an_object_carries_its_log_and_its_inputs(store: Store) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    assert artifact.file("build.log").read_bytes() == b"compiled\n"
    assert artifact.file("inputs.json").read_bytes() == canonical(RECIPE.document)
    assert store.log_path(RECIPE).read_bytes() == b"compiled\n"


def test_an_object_is_read_only_and_keeps_its_executable_bit(store: Store) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    modes = {path.name: path.stat().st_mode & 0o777 for path in artifact.directory.iterdir()}
    assert modes.pop("init") == 0o555
    assert set(modes.values()) == {0o444}


def test_other_inputs_are_another_object(store: Store) -> None:
    other = Recipe("init", "guest", {"sources": {"a": "2"}})
    store.obtain(RECIPE, build)
    assert store.obtain(other, build)[1] == "built"
    assert len(objects(store)) == 2


def test_what_another_build_stands_on_must_be_there(store: Store) -> None:
    with pytest.raises(StoreError, match=f"init:guest {RECIPE.short} is not in the store"):
        store.need(RECIPE)


@pytest.mark.parametrize("error", [FcBuildError("no"), KeyboardInterrupt(), RuntimeError()])
def test_a_failing_build_leaves_nothing_but_its_log(store: Store, error: BaseException) -> None:
    def fail(stage: Stage) -> None:
        build(stage)
        raise error

    with pytest.raises(type(error)):
        store.obtain(RECIPE, fail)
    assert not objects(store)
    assert not stages(store)
    assert store.log_path(RECIPE).read_bytes() == b"compiled\n"
    assert store.obtain(RECIPE, build)[1] == "built"


def test_gates_run_on_what_was_made_and_one_that_fails_fails_the_build(store: Store) -> None:
    seen = []

    def gated(stage: Stage, *, good: bool) -> None:
        build(stage)

        def gate() -> None:
            seen.append(stage.file("init").read_bytes())
            stage.log.write(b"looked at\n")
            if not good:
                raise FcBuildError("not sound")

        stage.gates.append(gate)

    with pytest.raises(FcBuildError, match="not sound"):
        store.obtain(RECIPE, lambda stage: gated(stage, good=False))
    assert not objects(store)
    assert not stages(store)
    artifact, _ = store.obtain(RECIPE, lambda stage: gated(stage, good=True))
    assert seen == [b"program"] * 2
    assert artifact.file("build.log").read_bytes() == b"compiled\nlooked at\n"


STEPS: list[tuple[Any, str]] = [
    (Path, "rename"),
    (Path, "chmod"),
    (Path, "write_text"),
    (Path, "write_bytes"),
    (os, "fsync"),
    (manifest, "digest"),
    (stores, "canonical"),
    (os, "utime"),
    (locks, "share"),
    (shutil, "copyfile"),
]


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_step_leaves_only_whole_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str, when: str
) -> None:
    real = getattr(owner, step)
    calls = 0
    crash_at = 0

    def crashing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != crash_at:
            return real(*args, **kwargs)
        if when == "after":
            with contextlib.suppress(OSError):
                real(*args, **kwargs)
        raise KeyboardInterrupt

    reached = 0
    while True:
        calls, crash_at = 0, crash_at + 1
        store = Store(tmp_path / str(crash_at))
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, crashing)
            try:
                store.obtain(RECIPE, build)
            except KeyboardInterrupt:
                reached += 1
            else:
                break
        assert_whole(store)
        assert not (store.root / "stage").exists() or not stages(store)
        # And the next run gets over it.
        store.obtain(RECIPE, build)
        assert_whole(store)
    assert reached, "the step never happened"


def test_a_killed_builder_leaves_only_a_stage(store: Store) -> None:
    def die(stage: Stage) -> None:
        build(stage)
        os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=store.obtain, args=(RECIPE, die))
    child.start()
    child.join(20)
    assert child.exitcode == 9
    assert not objects(store)
    assert len(stages(store)) == 1
    assert store.obtain(RECIPE, build)[1] == "built"  # the lock went with the process


def counting(builds: Path, gate: Callable[[], object]) -> Callable[[Stage], None]:
    def count(stage: Stage) -> None:
        with builds.open("ab") as file:
            file.write(b"x")
        gate()
        build(stage)

    return count


def test_two_threads_build_one_object_once(store: Store, tmp_path: Path) -> None:
    found: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def gate() -> None:
        inside.set()
        assert go.wait(20)

    def obtain() -> None:
        found.append(store.obtain(RECIPE, counting(tmp_path / "builds", gate))[1])

    threads = [threading.Thread(target=obtain) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert inside.wait(20)
    go.set()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == ["built", "stored", "stored"]
    assert (tmp_path / "builds").read_bytes() == b"x"


def test_processes_that_start_at_once_build_one_object_once(store: Store, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Barrier(4)

    def obtain() -> None:
        ready.wait(20)
        store.obtain(RECIPE, counting(tmp_path / "builds", lambda: None))

    children = [fork.Process(target=obtain) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    assert (tmp_path / "builds").read_bytes() == b"x"
    assert_whole(store)


def test_the_first_of_two_that_both_built_wins(store: Store) -> None:
    def beaten(stage: Stage) -> None:
        build(stage)
        other = Store(store.root)
        # Another builder that did not see the lock: a store on a file system without flock.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(locks, "exclusive", lambda *args, **kwargs: contextlib.nullcontext())
            other.obtain(RECIPE, build)
        stage.file("init").write_bytes(b"second")

    artifact, _ = store.obtain(RECIPE, beaten)
    assert artifact.file("init").read_bytes() == b"program"
    assert not stages(store)
    assert_whole(store)


DAMAGE = ["", "{", "[]", "{}", '{"files": 1, "facts": {}}', '{"files": {"a": 1}, "facts": {}}']


def spoil(artifact: Artifact, name: str, content: bytes) -> None:
    """Write other bytes to a file of an object, as a failing disk would."""
    artifact.file(name).chmod(0o600)
    artifact.file(name).write_bytes(content)
    artifact.file(name).chmod(0o444)


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_object_with_a_damaged_manifest_is_built_again(
    store: Store, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    spoil(artifact, "manifest.json", damage.encode())
    assert store.find(RECIPE) is None
    assert store.objects("init") == []
    assert store.obtain(RECIPE, build)[1] == "built"
    assert f"init:guest: {RECIPE.short} in the store is damaged" in capsys.readouterr().err
    assert_whole(store)
    assert not stages(store)


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file" / "store").obtain(RECIPE, build)
    assert "set FCBUILD_STORE" in str(caught.value.hint)


@pytest.mark.parametrize("part", ["locks", "stage", "logs", "objects"])
def test_a_store_that_cannot_be_written_is_named(store: Store, part: str) -> None:
    store.obtain(Recipe("init", "other", {}), build)
    shutil.rmtree(store.root / part)
    (store.root / part).touch()
    with pytest.raises(StoreError, match=str(store.root)):
        store.obtain(RECIPE, build)


@pytest.mark.parametrize("part", ["locks", "stage"])
def test_a_store_of_another_user_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Root may write everywhere, so the refusal is made up."""
    store.obtain(Recipe("init", "other", {}), build)
    opened, made = os.open, tempfile.mkdtemp

    def open_refused(path: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(path).parent.name == part:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    def make_refused(*args: Any, **kwargs: Any) -> Any:
        if part == "stage":
            raise PermissionError(13, "Permission denied")
        return made(*args, **kwargs)

    monkeypatch.setattr(os, "open", open_refused)
    monkeypatch.setattr(tempfile, "mkdtemp", make_refused)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        store.obtain(RECIPE, build)


def test_another_layout_is_refused(store: Store) -> None:
    store.obtain(RECIPE, build)
    (store.root / "schema").write_text("2\n")
    other = Recipe("init", "guest", {})
    with pytest.raises(StoreError, match="has layout 2, this fcbuild writes layout 1"):
        store.obtain(other, build)


def test_a_link_leads_to_the_artifact_and_can_be_moved(store: Store, tmp_path: Path) -> None:
    first, _ = store.obtain(RECIPE, build)
    second, _ = store.obtain(Recipe("init", "guest", {}), build)
    at = tmp_path / "deep" / "init"
    assert not links_to(at, first, "init")
    link(first, "init", at)
    assert links_to(at, first, "init")
    assert at.read_bytes() == b"program"
    link(second, "init", at)
    assert links_to(at, second, "init")
    assert not links_to(at, first, "init")
    assert [path.name for path in at.parent.iterdir()] == ["init"]


def test_a_file_in_the_place_of_a_link_is_no_link(store: Store, tmp_path: Path) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    (tmp_path / "init").write_bytes(b"program")
    assert not links_to(tmp_path / "init", artifact, "init")


def test_objects_of_a_kind_the_newest_first(store: Store) -> None:
    assert store.objects("init") == []
    made = []
    for number in range(3):
        artifact, _ = store.obtain(Recipe("init", f"guest-{number}", {"n": number}), build)
        artifact.directory.chmod(0o700)
        os.utime(artifact.directory, (number, number))
        made.append(artifact)
    store.obtain(Recipe("agent", "other", {}), build)
    assert store.objects("init") == made[::-1]


def test_what_is_held_is_not_dropped_as_long_as_its_holder_lives(store: Store) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    other = Store(store.root)
    assert not other.drop(artifact.directory)
    user = Store(store.root)
    assert user.hold(RECIPE) == artifact
    assert not other.drop(artifact.directory)


def test_an_object_that_another_built_again_is_found(store: Store) -> None:
    artifact, _ = store.obtain(RECIPE, build)
    spoil(artifact, "manifest.json", b"{")
    assert Store(store.root).obtain(RECIPE, build)[1] == "built"
    assert store.need(RECIPE).digests == artifact.digests
    assert store.obtain(RECIPE, never)[1] == "stored"


def test_an_object_of_an_older_fcbuild_is_used_as_it_is(store: Store) -> None:
    """Its directory can be written to, and its manifest has no digest and no records."""
    artifact, _ = store.obtain(RECIPE, build)
    artifact.directory.chmod(0o755)
    document = json.loads(artifact.file("manifest.json").read_bytes())
    del document["records"], document["digest"]
    spoil(artifact, "manifest.json", json.dumps(document, indent=1).encode())
    shutil.rmtree(store.root / "uses")
    shutil.rmtree(store.root / "roots")
    again = Store(store.root)
    assert again.need(RECIPE).digests == artifact.digests
    assert again.obtain(RECIPE, never)[1] == "stored"
    assert again.obtain(Recipe("init", "guest", {}), build)[1] == "built"


def test_too_many_open_files_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.obtain(RECIPE, build)

    def full(path: Path) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(locks, "share", full)
    with pytest.raises(StoreError, match="Too many open files") as caught:
        Store(store.root).need(RECIPE)
    assert "ulimit -n" in str(caught.value.hint)
