"""Object trees beside the store: kept while they are whole, one build at a time, not too many."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from fcbuild.build.object_tree import ASKED, KEPT_TREES, ObjectTree, objects

Tree = AbstractContextManager[ObjectTree]


def make(tree: ObjectTree, name: str = "kernel.o") -> None:
    with tree.changing():
        (tree.path / "dir").mkdir(exist_ok=True)
        (tree.path / "dir" / name).write_text("made")


def ours(cache: Path, name: str = "a", *, key: str = "source", asked: str = "") -> Tree:
    """A kernel's tree, as its build takes it."""
    return objects(cache, [key], name, asked, cache / "fresh")


def names(tree: ObjectTree) -> set[str]:
    return {path.name for path in tree.path.rglob("*.o")}


def test_what_was_made_is_there_for_the_next_build_of_the_same(tmp_path: Path) -> None:
    with ours(tmp_path, "a", key="a") as tree:
        make(tree)
    with ours(tmp_path, "b", key="b") as tree:
        assert names(tree) == set()
    with ours(tmp_path, "a", key="a") as tree:
        assert names(tree) == {"kernel.o"}
    assert tree.path.stat().st_mode & 0o777 == 0o700


def test_what_a_failed_make_left_is_thrown_away(tmp_path: Path) -> None:
    with ours(tmp_path, "a", key="a") as tree:
        make(tree)
        (tree.path / "link").symlink_to(tmp_path)
        with pytest.raises(OSError, match="disk full"), tree.changing():
            (tree.path / "half.o").touch()
            raise OSError("disk full")
    with ours(tmp_path, "a", key="a") as tree:
        assert [path.name for path in tree.path.iterdir()] == [ASKED]
    assert tmp_path.is_dir()


def test_a_failure_between_two_makes_leaves_the_tree(tmp_path: Path) -> None:
    def fail() -> None:
        with ours(tmp_path, "a", key="a") as tree:
            make(tree)
            raise ValueError("a dropped line")

    with pytest.raises(ValueError, match="a dropped line"):
        fail()
    with ours(tmp_path, "a", key="a") as tree:
        assert names(tree) == {"kernel.o"}


def test_two_builds_of_the_same_do_not_share_a_tree(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with ours(tmp_path) as one, ours(tmp_path) as two:
        assert one.path != two.path == fresh


def test_the_trees_used_last_are_kept_and_none_in_use_is_removed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        oldest = stack.enter_context(ours(tmp_path, "oldest", key="oldest"))
        os.utime(oldest.path, (1, 1))
        for number in range(KEPT_TREES):
            with ours(tmp_path, str(number)) as tree:
                make(tree)
                os.utime(tree.path, (2 + number, 2 + number))
        assert oldest.path.is_dir()
        assert len(list((tmp_path / "objects").iterdir())) == KEPT_TREES + 1
    with ours(tmp_path, "another", key="another") as tree:
        pass
    kept = set((tmp_path / "objects").iterdir())
    assert tree.path in kept and oldest.path not in kept and len(kept) == KEPT_TREES


def test_a_kernel_without_a_tree_begins_with_a_copy_of_the_one_most_alike(tmp_path: Path) -> None:
    for name, asked in {"micro": "A=y", "default": "A=y\nB=y", "debug": "A=y\nB=y\nD=y"}.items():
        with ours(tmp_path, name, asked=asked) as tree:
            make(tree, f"{name}.o")
            os.utime(tree.path / "dir" / f"{name}.o", ns=(1, 1_000_000_001))
    with ours(tmp_path, "container", asked="A=y\nB=y\nC=y") as tree:
        assert names(tree) == {"micro.o", "default.o"}  # default was a copy of micro, too
        assert (tree.path / "dir" / "default.o").stat().st_mtime_ns == 1_000_000_001
        assert (tree.path / ASKED).read_text() == "A=y\nB=y\nC=y"
    with ours(tmp_path, "default", asked="A=y\nB=y") as tree:
        assert names(tree) == {"micro.o", "default.o"}


def test_a_copy_that_no_make_has_ended_in_is_thrown_away(tmp_path: Path) -> None:
    with ours(tmp_path, "a") as tree:
        make(tree)
    with ours(tmp_path, "b") as tree:
        (tree.path / "dir" / "half.o").touch()
    with ours(tmp_path, "b") as tree:
        assert names(tree) == {"kernel.o"}


def test_of_another_source_or_of_a_tree_that_is_not_whole_nothing_is_copied(tmp_path: Path) -> None:
    with ours(tmp_path, "a", key="other") as tree:
        make(tree)
    with ours(tmp_path, "broken") as tree:
        make(tree)
        with pytest.raises(OSError, match="disk full"), tree.changing():
            raise OSError("disk full")
    with ours(tmp_path, "b") as tree:
        assert names(tree) == set()


def test_a_tree_that_is_being_changed_is_not_copied(tmp_path: Path) -> None:
    with ours(tmp_path, "farther", asked="A=y\nB=y") as tree:
        make(tree, "farther.o")
    with ours(tmp_path, "nearest", asked="A=y") as nearest:
        make(nearest, "nearest.o")
        with ours(tmp_path, "new", asked="A=y") as tree:
            assert names(tree) == {"farther.o"}


def test_a_copy_that_fails_leaves_an_empty_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copies_half(source: Path, to: Path, **_: object) -> None:
        (to / "half.o").touch()
        raise shutil.Error([(str(source), str(to), "No space left on device")])

    with ours(tmp_path, "a") as tree:
        make(tree)
    monkeypatch.setattr(shutil, "copytree", copies_half)
    with ours(tmp_path, "b") as tree:
        assert names(tree) == set()
