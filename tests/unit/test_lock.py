"""The lock's documents: what is written is what is read, and what moved is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild import lock
from fcbuild.errors import FcBuildError
from fcbuild.lock import Lock, LockedBase, LockedImage

A, B = ("sha256:" + digit * 64 for digit in "ab")
BASE = LockedBase(
    suite="trixie",
    asked=("bash", "curl"),
    packages={"libstdc++6": "14.2-1", "bash": "1:5.2~rc1-1+b2", "curl": "8.1-1"},
    time=1769860800,
)
LOCK = Lock(
    images={
        "alpine:3.23": LockedImage(digest=A, time=1769860800),
        "127.0.0.1:5000/a/b": LockedImage(digest=B, time=0),
    },
    bases={"debian-base": BASE},
)
ARM = BASE._replace(arch="aarch64")


def changed(base: LockedBase, **packages: str) -> Lock:
    return Lock(
        bases={"x": LockedBase(suite=base.suite, asked=base.asked, packages=packages, time=1)}
    )


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, problems = tmp_path / lock.FILE, list[str]()
    lock.write(path, LOCK)
    assert lock.read(path, "here", problems) == LOCK
    assert problems == []
    assert list(tmp_path.iterdir()) == [path]
    lock.write(path, Lock(bases={"arm": ARM}))
    assert lock.read(path, "here", problems) == Lock(bases={"arm": ARM})
    lock.write(path, Lock())
    assert lock.read(path, "here", problems) == Lock()


def test_a_lock_is_sorted_with_a_line_for_each_package() -> None:
    assert (
        lock.document(LOCK)
        == f"""\
# Written by `doit lock`; commit it. Nothing in it is for changing by hand.

[image."127.0.0.1:5000/a/b"]
digest = "{B}"
time = 1970-01-01T00:00:00Z

[image."alpine:3.23"]
digest = "{A}"
time = 2026-01-31T12:00:00Z

[base.debian-base]
suite = "trixie"
asked = ["bash", "curl"]
time = 2026-01-31T12:00:00Z
[base.debian-base.packages]
bash = "1:5.2~rc1-1+b2"
curl = "8.1-1"
"libstdc++6" = "14.2-1"
"""
    )


def test_no_lock_is_an_empty_one(tmp_path: Path) -> None:
    problems: list[str] = []
    assert lock.read(tmp_path / "none.toml", "here", problems) == Lock()
    assert problems == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< ours\n", "here: not valid TOML"),
        ("[images]\n", "here: images: unknown key (did you mean image?)"),
        ("image = 1\n", "here: image: expected a table, got 1"),
        ("[image]\nx = 1\n", "here: image.x: expected a table, got 1"),
        ("[image.x]\n", "here: image.x.digest is missing"),
        ("[image.x]\ndigest = 'sha256:1'\n", "here: image.x.digest: expected"),
        ("[image.x]\ntime = 2026-01-31T12:00:00\n", "here: image.x.time: expected a time like"),
        ("[image.x]\ntime = 1969-12-31T12:00:00Z\n", "here: image.x.time: expected a time like"),
        ("[image.x]\ntime = 1\n", "here: image.x.time: expected a time like"),
        ("[base.x]\npackages = { a = 1 }\n", "here: base.x.packages: expected a table of strings"),
        ("[base.x]\nsuit = ''\n", "here: base.x.suit: unknown key (did you mean suite?)"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / lock.FILE).write_text(text)
    problems: list[str] = []
    lock.read(tmp_path / lock.FILE, "here", problems)
    assert any(problem.startswith(said) for problem in problems), problems
    assert problems[-1] == "here: written by `doit lock`: remove it and run `doit lock` again"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FcBuildError, match=r"none/lock.toml cannot be written: No such file"):
        lock.write(tmp_path / "none" / lock.FILE, LOCK)


def test_what_moved_is_told_in_words() -> None:
    image = LockedImage(digest=A, time=1)
    old = Lock(images={"same": image, "moved": image, "gone": image})
    new = Lock(
        images={
            "same": LockedImage(digest=A, time=9),
            "moved": LockedImage(digest=B, time=9),
            "new": image,
        }
    )
    assert lock.moves(old, new) == [
        "gone  dropped: nothing uses it",
        "moved  sha256:aaaaaaaaaaaa… -> sha256:bbbbbbbbbbbb…",
        "new  locked: sha256:aaaaaaaaaaaa…",
    ]


@pytest.mark.parametrize(
    ("packages", "line"),
    [
        ({"a": "1", "b": "1"}, None),
        ({"a": "2", "b": "1"}, "x: a 1 -> 2"),
        ({"a": "2", "c": "1", "d": "1"}, "x: a 1 -> 2, 2 added, 1 removed"),
        ({"a": "1"}, "x: 1 removed"),
    ],
)
def test_a_base_that_moved_is_one_line(packages: dict[str, str], line: str | None) -> None:
    old = changed(BASE, a="1", b="1")
    assert lock.moves(old, changed(BASE, **packages)) == ([line] if line else [])


def test_a_base_that_comes_goes_or_is_asked_for_otherwise_is_told() -> None:
    other = LockedBase(suite="trixie", asked=(), packages=BASE.packages, time=BASE.time)
    assert lock.moves(Lock(), Lock(bases={"x": BASE})) == ["x: locked: 3 packages"]
    assert lock.moves(Lock(bases={"x": BASE}), Lock()) == ["x: dropped: it is no base any more"]
    assert lock.moves(Lock(bases={"x": BASE}), Lock(bases={"x": other})) == [
        "x: asked for otherwise, the same packages"
    ]


def test_of_many_packages_three_are_named() -> None:
    old = {name: "1" for name in "abcdef"}
    new = {name: "2" for name in "abcdeg"}
    assert lock.summary(old, new) == "a 1 -> 2, b 1 -> 2, c 1 -> 2, 2 more, 1 added, 1 removed"
    assert lock.differences(old, new) == [
        *(f"{name} 1 -> 2" for name in "abcde"),
        "g 2 added",
        "f 1 removed",
    ]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"CI": ""}, False),
        ({"CI": "false"}, False),
        ({"CI": "False"}, False),
        ({"CI": "0"}, False),
        ({"CI": "true"}, True),
        ({"CI": "woodpecker"}, True),
        ({"FCBUILD_LOCKED": "1"}, True),
        ({"CI": "true", "FCBUILD_LOCKED": "0"}, False),
    ],
)
def test_ci_insists_on_the_lock(environ: dict[str, str], expected: bool) -> None:
    assert lock.insisted(environ) is expected
