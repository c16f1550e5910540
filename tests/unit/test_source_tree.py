"""Unpacked sources beside the store: made once, whole or not at all, and not too many of them."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from fcbuild.build.source_tree import KEPT_TREES, tree


class Unpacker:
    """Counts how often it is asked, and writes one file."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, to: Path) -> None:
        self.count += 1
        (to / "Makefile").write_text("all:\n")


def trees(cache: Path) -> set[str]:
    return {path.name for path in (cache / "trees").iterdir() if path.is_dir()}


def test_a_tree_is_unpacked_once_for_a_key(tmp_path: Path) -> None:
    unpack = Unpacker()
    for key in (["a"], ["a"], ["a", "patch"], ["a"]):
        with tree(tmp_path, key, unpack, what="kernel:x") as place:
            assert (place / "Makefile").is_file()
    assert unpack.count == 2
    assert (tmp_path / "trees").stat().st_mode & 0o777 == 0o700


def test_a_tree_that_cannot_be_unpacked_leaves_nothing(tmp_path: Path) -> None:
    def fail(to: Path) -> None:
        (to / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), tree(tmp_path, ["a"], fail, what="x"):
        pass
    assert trees(tmp_path) == set()


def test_what_a_killed_build_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "trees" / "new-abc").mkdir(parents=True)
    (tmp_path / "trees" / "new-abc" / "half").touch()
    with tree(tmp_path, ["a"], Unpacker(), what="x") as place:
        assert trees(tmp_path) == {place.name}


def test_the_trees_used_last_are_kept_and_none_in_use_is_removed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        oldest = stack.enter_context(tree(tmp_path, ["oldest"], Unpacker(), what="x"))
        os.utime(oldest, (1, 1))
        for number in range(KEPT_TREES):
            with tree(tmp_path, [str(number)], Unpacker(), what="x") as place:
                os.utime(place, (2 + number, 2 + number))
        assert oldest.name in trees(tmp_path) and len(trees(tmp_path)) == KEPT_TREES + 1
    with tree(tmp_path, ["another"], Unpacker(), what="x") as place:
        assert place.name in trees(tmp_path)
        assert oldest.name not in trees(tmp_path) and len(trees(tmp_path)) == KEPT_TREES


def test_builds_of_one_series_side_by_side_unpack_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    began, go = threading.Event(), threading.Event()
    unpack = Unpacker()

    def slowly(to: Path) -> None:
        began.set()
        assert go.wait(20)
        unpack(to)

    def build() -> None:
        with tree(tmp_path, ["a"], slowly, what="kernel:x") as place:
            assert (place / "Makefile").is_file()

    threads = [threading.Thread(target=build) for _ in range(3)]
    threads[0].start()
    assert began.wait(20)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(20)
    assert unpack.count == 1
