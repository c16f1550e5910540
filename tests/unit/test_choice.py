"""Which root filesystem a word means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcbuild import spec
from fcbuild.errors import ImageError, SpecError
from fcbuild.look import choice
from fcbuild.plan import Plan
from fcbuild.store import Artifact, Store


@pytest.fixture
def plan(checkout: Path) -> Plan:
    return Plan(spec.load(checkout))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, name: str, fingerprint: str) -> None:
    directory = store.root / "objects" / "rootfs" / fingerprint
    directory.mkdir(parents=True)
    manifest = {"name": name, "files": {"rootfs.ext4": {"sha256": "aa", "size": 0}}, "facts": {}}
    (directory / "rootfs.ext4").touch()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def chosen(word: str, plan: Plan, store: Store) -> Artifact:
    return choice.rootfs(word, plan, store)


def test_a_name_is_the_image_as_it_is_now(plan: Plan, store: Store) -> None:
    fingerprint = plan.rootfs("web").fingerprint
    put(store, "web", "0" * 64)
    with pytest.raises(
        ImageError, match=r"web, as it is now, is not built; .*: 000000000000"
    ) as no:
        chosen("web", plan, store)
    assert no.value.hint == "doit build image=web makes it"
    put(store, "web", fingerprint)
    assert chosen("web", plan, store).fingerprint == fingerprint


def test_an_image_that_was_never_built(plan: Plan, store: Store) -> None:
    with pytest.raises(ImageError, match=r"tool, as it is now, is not built\n"):
        chosen("tool", plan, store)


def test_a_fingerprint_can_be_cut_as_long_as_it_is_clear(plan: Plan, store: Store) -> None:
    put(store, "web", "abcd" + "0" * 60)
    put(store, "gone", "abce" + "0" * 60)
    assert chosen("abcd", plan, store).name == "web"
    assert chosen("abce" + "0" * 60, plan, store).name == "gone"
    put(store, "tool", "abcd1" + "0" * 59)
    with pytest.raises(ImageError, match="abcd is the beginning of 2 root filesystems'") as unclear:
        chosen("abcd", plan, store)
    assert "abcd000000000000 (web)" in str(unclear.value.hint)
    assert "abcd100000000000 (tool)" in str(unclear.value.hint)


@pytest.mark.parametrize("word", ["abc", "", "abcd", "abcdef/..", "*", "ABCD"])
def test_what_names_nothing_is_refused(word: str, plan: Plan, store: Store) -> None:
    put(store, "web", "0" * 64)
    with pytest.raises(SpecError, match="no image"):
        chosen(word, plan, store)


def test_near_names_are_offered_and_bases_refused(plan: Plan, store: Store) -> None:
    with pytest.raises(SpecError, match=r"did you mean tool\?"):
        chosen("tol", plan, store)
    with pytest.raises(SpecError, match="base is a base for other images"):
        chosen("base", plan, store)
