"""Where a store can be, and what is said of where it cannot."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import StoreError
from fcbuild.recipes import Recipe
from fcbuild.store import Stage, Store, layout

RECIPE = Recipe("init", "guest", {})


def build(stage: Stage) -> None:
    stage.file("init").touch()


def test_a_place_is_a_directory_made_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layout.place(str(tmp_path / "new" / "store")) == tmp_path / "new" / "store"
    assert layout.place(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert layout.place("~/store") == tmp_path / "store"
    monkeypatch.chdir(tmp_path)
    assert layout.place("store") == tmp_path / "store"
    odd = tmp_path / "a b:c,d'é%"
    assert layout.place(str(odd)) == odd


@pytest.mark.parametrize("value", ["a\nb", "a\tb", os.fsdecode(b"a\xff")])
def test_a_path_that_nobody_can_be_told_is_refused(value: str) -> None:
    with pytest.raises(StoreError, match="is not a path that the engine can be told"):
        layout.place(value)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is not a directory") as caught:
        layout.place(str(tmp_path / "file"))
    assert "FCBUILD_STORE" in str(caught.value.hint)


def test_somebody_elses_directory_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"neither empty nor a store: it holds thesis\.tex"):
        Store(tmp_path).obtain(RECIPE, build)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("there", [[], ["lost+found"], ["downloads"], ["stage", "objects"]])
def test_an_empty_disk_and_what_a_killed_run_began_become_a_store(
    tmp_path: Path, there: list[str]
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    assert Store(tmp_path).obtain(RECIPE, build)[1] == "built"
    assert (tmp_path / "schema").read_text() == "1\n"
    assert not list((tmp_path / "stage").iterdir())


@pytest.mark.parametrize("layout_", ["2", "", "x" * 1000])
def test_another_layout_is_refused_before_anything_is_read(tmp_path: Path, layout_: str) -> None:
    Store(tmp_path).obtain(RECIPE, build)
    (tmp_path / "schema").write_text(layout_)
    for ask in (Store(tmp_path).find, Store(tmp_path).need, Store(tmp_path).hold):
        with pytest.raises(StoreError, match="this fcbuild writes layout 1"):
            ask(RECIPE)
    with pytest.raises(StoreError, match="this fcbuild writes layout 1"):
        Store(tmp_path).directories()


def no_flock(*args: Any) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def nothing(*args: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("owner", "call", "instead", "lacks"),
    [
        (fcntl, "flock", no_flock, r"locks \(flock\): No locks available"),
        (fcntl, "flock", nothing, r"locks \(flock\): it has no effect"),
        (Path, "rename", nothing, "a rename that takes no other directory's place"),
        (os, "fsync", no_flock, "fsync of a directory"),
    ],
)
def test_a_file_system_that_cannot_carry_a_store_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    call: str,
    instead: Any,
    lacks: str,
) -> None:
    monkeypatch.setattr(owner, call, instead)
    with pytest.raises(StoreError, match=f"its file system lacks {lacks}") as caught:
        layout.prepare(tmp_path)
    assert "local disk" in str(caught.value.hint)
    assert not (tmp_path / "schema").exists()
    monkeypatch.undo()
    layout.prepare(tmp_path)


def test_a_store_is_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.prepare(tmp_path)
    monkeypatch.setattr(fcntl, "flock", no_flock)
    layout.prepare(tmp_path)


def test_objects_are_read_only_directories_too(tmp_path: Path) -> None:
    artifact, _ = Store(tmp_path).obtain(RECIPE, build)
    assert artifact.directory.stat().st_mode & 0o777 == 0o555
