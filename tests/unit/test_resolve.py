"""doit lock: what is asked, what is kept, what is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fcbuild import lock, spec
from fcbuild import plan as plans
from fcbuild.build import base, foreign, resolve
from fcbuild.errors import CommandFailed, SourceError
from fcbuild.lock import Lock, LockedBase, LockedImage
from fcbuild.plan import Plan
from fcbuild.store import Store
from tests.unit.test_base import tar

A, B = ("sha256:" + digit * 64 for digit in "ab")
OLD = 1_000_000


class Registries:
    """Stands for the engine: tags and their digests; others have no answer."""

    def __init__(self, **digests: str) -> None:
        self.digests = digests
        self.asked: list[str] = []

    def digest(self, reference: str) -> str:
        self.asked.append(reference)
        if reference not in self.digests:
            raise SourceError(f"{reference}: no answer")
        return self.digests[reference]


class Lab:
    """A checkout, its archive, and `doit lock` in it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.packages: dict[str, Mapping[str, str] | None] = {}
        self.bootstrapped: list[str] = []
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        monkeypatch.setattr(plans, "TOOLCHAIN_LOCK", root / "toolchain-lock.toml")
        monkeypatch.setattr(base, "bootstrap", self.bootstrap)

    def bootstrap(self, asked: Any, to: Path, **rest: Any) -> None:
        name = "base" if "curl" in asked.packages else "toolchain"
        self.bootstrapped.append(name)
        packages = self.packages.get(name)
        if packages is None:
            raise CommandFailed("bootstrapping", argv=["mmdebstrap"], status=1)
        tar(to, packages)

    def image(self, name: str, dockerfile: str) -> None:
        (self.root / "images" / name).mkdir()
        (self.root / "images" / name / "image.toml").write_text("")
        (self.root / "images" / name / "Dockerfile").write_text(dockerfile)

    def lock(self, old: Lock) -> None:
        lock.write(self.root / "images" / lock.FILE, old)

    def plan(self) -> Plan:
        return Plan(spec.load(self.root))

    def ask(self, engine: Any, *names: str, toolchain: bool = False) -> resolve.Answer:
        return resolve.ask(
            self.plan(),
            self.store,
            engine,
            names=names,
            toolchain=toolchain,
            scratch=self.scratch,
        )


@pytest.fixture
def lab(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(checkout, monkeypatch)


def test_a_named_image_is_asked_for_and_others_are_kept(lab: Lab) -> None:
    lab.image("one", "FROM a\nCOPY --from=b / /\n")
    lab.image("two", "FROM b\nCOPY --from=c / /\n")
    kept = LockedImage(digest=A, time=OLD)
    lab.lock(Lock(images={"b": kept, "c": kept, "unused": kept}))
    engine = Registries(a=B, b=B, c=B)
    answer = lab.ask(engine, "one")
    assert engine.asked == ["a", "b"]
    assert {name: image.digest for name, image in answer.images.images.items()} == {
        "a": B,
        "b": B,
        "c": A,
    }
    assert answer.images.images["b"].time > OLD
    assert answer.silent == () and lab.bootstrapped == []


def test_what_did_not_move_keeps_its_time(lab: Lab) -> None:
    lab.image("one", "FROM a\n")
    old = Lock(
        images={"a": LockedImage(digest=A, time=OLD)},
        bases={
            "base": LockedBase(
                suite="trixie", asked=("bash", "curl"), packages={"curl": "1"}, time=OLD
            )
        },
    )
    lab.lock(old)
    lab.packages = {"base": {"curl": "1"}}
    answer = lab.ask(Registries(a=A), "one", "base")
    assert answer.images == old
    assert answer.tars == {} and list(lab.scratch.iterdir()) == []


def test_a_registry_or_archive_without_an_answer_leaves_the_entry(lab: Lab) -> None:
    lab.image("one", "FROM a\nCOPY --from=new / /\n")
    old = Lock(
        images={"a": LockedImage(digest=A, time=OLD)},
        bases={"base": LockedBase(suite="sid", asked=(), packages={}, time=OLD)},
    )
    lab.lock(old)
    answer = lab.ask(Registries(), "one", "base", toolchain=True)
    assert answer.images == old
    assert answer.toolchain == Lock()
    assert [line.split(":")[:2] for line in answer.silent] == [
        ["a", " no answer"],
        ["new", " no answer"],
        ["base", "base"],
        ["base", "toolchain"],
    ]


def test_a_base_whose_programs_do_not_run_here_keeps_its_entry(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "trouble", lambda arch: f"no emulator for {arch}")
    answer = lab.ask(Registries(), "base")
    assert answer.silent == ("base:base: no emulator for x86_64",)
    assert lab.bootstrapped == []


def test_a_base_that_moved_is_in_the_store_under_the_new_lock(lab: Lab) -> None:
    lab.packages = {"base": {"curl": "2"}, "toolchain": {"gcc": "14"}}
    answer = lab.ask(Registries(), "base", toolchain=True)
    assert lab.bootstrapped == ["base", "toolchain"]
    found = answer.images.bases["base"]
    assert (found.suite, found.asked, found.packages) == ("trixie", ("bash", "curl"), {"curl": "2"})
    lab.lock(answer.images)
    lock.write(plans.TOOLCHAIN_LOCK, answer.toolchain)
    plan = lab.plan()
    resolve.keep(plan, lab.store, answer)
    for recipe, packages in (
        (plan.container("base"), {"curl": "2"}),
        (plan.toolchain, {"gcc": "14"}),
    ):
        tar = lab.store.need(recipe).file(base.TAR)
        assert base.installed(tar) == packages


def test_an_image_that_is_no_base_any_more_is_dropped(lab: Lab) -> None:
    entry = LockedBase(suite="trixie", asked=(), packages={}, time=OLD)
    lab.lock(Lock(bases={"base": entry, "gone": entry, "web": entry}))
    assert lab.ask(Registries(), "web").images == Lock(bases={"base": entry})
