"""Object trees beside the store: kept while they are whole, one build at a time, not too many."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fcbuild.build.object_tree import KEPT_TREES, ObjectTree, objects


def make(tree: ObjectTree, name: str = "kernel.o") -> None:
    with tree.changing():
        (tree.path / "dir").mkdir(exist_ok=True)
        (tree.path / "dir" / name).write_text("made")


def names(tree: ObjectTree) -> set[str]:
    return {path.name for path in tree.path.rglob("*.o")}


def test_what_was_made_is_there_for_the_next_build_of_the_same(tmp_path: Path) -> None:
    with objects(tmp_path, ["a"], tmp_path / "fresh") as tree:
        make(tree)
    with objects(tmp_path, ["b"], tmp_path / "fresh") as tree:
        assert names(tree) == set()
    with objects(tmp_path, ["a"], tmp_path / "fresh") as tree:
        assert names(tree) == {"kernel.o"}
    assert tree.path.stat().st_mode & 0o777 == 0o700


def test_what_a_failed_make_left_is_thrown_away(tmp_path: Path) -> None:
    with objects(tmp_path, ["a"], tmp_path / "fresh") as tree:
        make(tree)
        (tree.path / "link").symlink_to(tmp_path)
        with pytest.raises(OSError, match="disk full"), tree.changing():
            (tree.path / "half.o").touch()
            raise OSError("disk full")
    with objects(tmp_path, ["a"], tmp_path / "fresh") as tree:
        assert list(tree.path.iterdir()) == []
    assert tmp_path.is_dir()


def test_a_failure_between_two_makes_leaves_the_tree(tmp_path: Path) -> None:
    def fail() -> None:
        with objects(tmp_path, ["a"], tmp_path / "fresh") as tree:
            make(tree)
            raise ValueError("a dropped line")

    with pytest.raises(ValueError, match="a dropped line"):
        fail()
    with objects(tmp_path, ["a"], tmp_path / "fresh") as tree:
        assert names(tree) == {"kernel.o"}


def test_two_builds_of_the_same_do_not_share_a_tree(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    with (
        objects(tmp_path, ["a"], tmp_path / "unused") as one,
        objects(tmp_path, ["a"], fresh) as two,
    ):
        assert one.path != two.path == fresh


def test_the_trees_used_last_are_kept_and_none_in_use_is_removed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        oldest = stack.enter_context(objects(tmp_path, ["oldest"], tmp_path / "fresh"))
        os.utime(oldest.path, (1, 1))
        for number in range(KEPT_TREES):
            with objects(tmp_path, [str(number)], tmp_path / "fresh") as tree:
                make(tree)
                os.utime(tree.path, (2 + number, 2 + number))
        assert oldest.path.is_dir()
        assert len(list((tmp_path / "objects").iterdir())) == KEPT_TREES + 1
    with objects(tmp_path, ["another"], tmp_path / "fresh") as tree:
        pass
    kept = set((tmp_path / "objects").iterdir())
    assert tree.path in kept and oldest.path not in kept and len(kept) == KEPT_TREES
