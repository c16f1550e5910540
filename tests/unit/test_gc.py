"""gc: what goes, what stays whatever its age, and what others use at the moment."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fcbuild import gc, spec
from fcbuild.errors import SpecError, ToolMissing
from fcbuild.gc import DAY_S, Item, Policy, Report
from fcbuild.plan import Plan
from fcbuild.recipes import Recipe
from fcbuild.store import Artifact, Stage, Store, layout, link, locks
from fcbuild.tables import GIB, MIB

NOW = 1_000 * DAY_S
MONTH = Policy(age_s=30 * DAY_S, size=20 * GIB)
ALL = Policy(age_s=0, size=0)


class FakeEngine:
    """An engine that holds these images: tag -> when it was given."""

    def __init__(self, **images: float) -> None:
        self.held = dict(images)
        self.down = False
        self.swept = 0

    def images(self) -> Mapping[str, float]:
        if self.down:
            raise ToolMissing("no container engine answers")
        return dict(self.held)

    def remove(self, tag: str) -> None:
        if tag.endswith("busy"):
            raise ToolMissing(f"the container engine refuses: {tag} is used")
        del self.held[tag]

    def sweep(self, *, dry_run: bool) -> int:
        if self.down:
            raise ToolMissing("no container engine answers")
        self.swept += not dry_run
        return 2


class Lab:
    """A store, a checkout that uses it, and time that has passed."""

    def __init__(self, checkout: Path) -> None:
        self.plan = Plan(spec.load(checkout))
        self.artifacts = checkout / "artifacts"
        self.artifacts.mkdir()
        self.root = checkout.parent / "store"
        layout.prepare(self.root)
        self.engine = FakeEngine()

    @property
    def store(self) -> Store:
        """The store as another process sees it: what one has made it also holds."""
        return Store(self.root)

    def make(self, recipe: Recipe, *, days: float, size: int = 1000, file: str = "f") -> Artifact:
        """Have an object that was last used some days ago."""
        store = self.store

        def build(stage: Stage) -> None:
            stage.file(file).write_bytes(bytes(size))

        artifact, _ = store.obtain(recipe, build)
        self.age(store.uses.at(artifact.directory), days)
        for lock in store._held.values():
            os.close(lock)
        store._held.clear()
        return artifact

    def age(self, path: Path, days: float) -> None:
        then = time.time() - days * DAY_S
        os.utime(path, (then, then), follow_symlinks=False)

    def collect(self, policy: Policy = MONTH, *, dry_run: bool = False, **more: Any) -> Report:
        return gc.collect(
            self.store,
            self.plan,
            policy,
            pinned=more.get("pinned", ()),
            engine=self.engine,  # type: ignore[arg-type]
            dry_run=dry_run,
        )


@pytest.fixture
def lab(checkout: Path) -> Lab:
    return Lab(checkout)


def loose(number: int, kind: Any = "rootfs") -> Recipe:
    """A recipe that is in no plan."""
    return Recipe(kind, f"old-{number}", {"n": number})


def titles(items: list[Item]) -> list[str]:
    return [item.title.split()[0] for item in items]


def test_by_age_and_then_by_size_the_longest_unused_first() -> None:
    items = [Item(str(days), Path(), 10, NOW - days * DAY_S) for days in (1, 50, 5, 31)]
    chosen = gc.choose(items, Policy(age_s=30 * DAY_S, size=1000), total=100, now=NOW)
    assert [(item.title, why) for item, why in chosen] == [
        ("50", "not used for 50 days"),
        ("31", "not used for 31 days"),
    ]
    by_size = gc.choose(items, Policy(age_s=1000 * DAY_S, size=75), total=100, now=NOW)
    assert [item.title for item, _ in by_size] == ["50", "31", "5"]
    assert by_size[0][1] == "the store is larger than 1 MiB"
    assert not gc.choose(items, Policy(age_s=1000 * DAY_S, size=100), total=100, now=NOW)
    assert len(gc.choose(items, Policy(age_s=0, size=1000), total=100, now=NOW)) == 4


def test_the_command_line_says_how_much_may_stay() -> None:
    assert gc.policy(None, None) == MONTH
    assert gc.policy("12h", "500MiB") == Policy(age_s=12 * 3600, size=500 * MIB)
    assert gc.policy("0", "0") == ALL
    with pytest.raises(SpecError, match=r"age=soon: expected .*\nsize=big: expected"):
        gc.policy("soon", "big")
    with pytest.raises(SpecError, match="size=-1GiB"):
        gc.policy("1d", "-1GiB")


def test_what_nobody_refers_to_goes_when_it_is_old(lab: Lab) -> None:
    old, new = lab.make(loose(1), days=31), lab.make(loose(2), days=29)
    report = lab.collect()
    assert titles(report.removed) == ["rootfs:old-1"]
    assert report.freed > 0
    assert not old.directory.exists() and new.directory.exists()
    assert not lab.store.uses.at(old.directory).exists()
    assert not list((lab.root / "stage").iterdir())


def test_what_the_plan_names_stays(lab: Lab) -> None:
    recipes = [*lab.plan.all(), lab.plan.container("web")]
    made = [lab.make(recipe, days=1000) for recipe in recipes]
    report = lab.collect(ALL)
    assert not report.removed and report.kept == len(made)
    assert all(artifact.directory.exists() for artifact in made)


@pytest.mark.parametrize("how", ["link", "receipt"])
def test_what_a_checkout_refers_to_stays_with_all_that_it_was_made_from(
    lab: Lab, tmp_path: Path, how: str
) -> None:
    init = loose(1, "init")
    rootfs = Recipe("rootfs", "web", {}, (init, loose(2, "container")))
    made = [lab.make(recipe, days=99) for recipe in (*rootfs.parents, rootfs)]
    other = lab.make(loose(3), days=99)
    elsewhere = tmp_path / "elsewhere" / "artifacts"
    if how == "link":
        link(made[-1], "f", elsewhere / "images" / "web.ext4")
    else:
        (elsewhere / "receipts").mkdir(parents=True)
        half = {"kernel": {"fingerprint": "0" * 64}, "rootfs": {"fingerprint": rootfs.fingerprint}}
        (elsewhere / "receipts" / "web.json").write_text(json.dumps(half))
        (elsewhere / "receipts" / "broken.json").write_text("{")
    lab.store.adopt(elsewhere)
    assert titles(lab.collect(ALL).removed) == ["rootfs:old-3"]
    assert all(artifact.directory.exists() for artifact in made)
    assert not other.directory.exists()
    # A checkout that is gone keeps nothing.
    shutil.rmtree(elsewhere)
    report = lab.collect(ALL)
    assert len(report.removed) == 3
    assert report.litter["roots of checkouts that are gone"] == 1
    assert not lab.store.roots()


def test_what_is_in_use_stays(lab: Lab) -> None:
    recipe = loose(1)
    made = lab.make(recipe, days=99)
    user = lab.store
    user.hold(recipe)
    lab.age(user.uses.at(made.directory), 99)
    for dry_run in (True, False):
        report = lab.collect(ALL, dry_run=dry_run)
        assert titles(report.in_use) == ["rootfs:old-1"] and not report.removed
    assert made.directory.exists()


def test_what_was_used_since_gc_looked_stays(lab: Lab) -> None:
    made = lab.make(loose(1), days=99)
    looked = time.time()
    lab.age(lab.store.uses.at(made.directory), -1 / DAY_S)
    assert not lab.store.drop(made.directory, used_after=looked)
    assert lab.store.drop(made.directory, used_after=looked + 100)


def test_a_dry_run_removes_nothing_and_says_the_same(lab: Lab) -> None:
    for number in range(3):
        lab.make(loose(number), days=99)
    before = sorted(lab.root.rglob("*"))
    shown = lab.collect(dry_run=True)
    assert sorted(lab.root.rglob("*")) == before
    assert titles(shown.removed) == titles(lab.collect().removed)


def test_a_damaged_object_that_nobody_needs_goes_too(lab: Lab) -> None:
    made = lab.make(loose(1), days=99)
    made.file("manifest.json").chmod(0o600)
    made.file("manifest.json").write_text("{")
    assert titles(lab.collect().removed) == ["rootfs:?"]


def test_downloads_go_by_their_last_use_unless_they_are_pinned(lab: Lab) -> None:
    downloads = lab.root / "downloads"
    downloads.mkdir()
    for name, days in {"a": 99, "b": 99, "c": 0.5, "d": 2}.items():
        (downloads / (name * 64)).write_bytes(b"x")
        lab.age(downloads / (name * 64), days)
    (downloads / "fetch-x").mkdir()
    lab.age(downloads / "fetch-x", 99)
    lab.collect(MONTH, pinned={"a" * 64})
    assert sorted(path.name[0] for path in downloads.iterdir()) == ["a", "c", "d"]
    # One that came today may be about to be used.
    lab.collect(Policy(age_s=30 * DAY_S, size=0))
    assert [path.name[0] for path in downloads.iterdir()] == ["c"]


def test_litter_goes(lab: Lab) -> None:
    stage, logs, lock = (lab.root / part for part in ("stage", "logs", "locks"))
    killed, alive = stage / f"kernel-{'0' * 12}-a", stage / f"kernel-{'0' * 12}-b"
    older, fresh = stage / "kernel-older", stage / "kernel-fresh"
    for path in (killed, alive, older, fresh):
        (path / "scratch").mkdir(parents=True)
    held = locks.share(alive)
    lab.age(older, 2)
    (logs / "old.log").touch()
    (logs / "new.log").touch()
    lab.age(logs / "old.log", 31)
    (lock / "kernel-free").touch()
    (lock / "kernel-held").touch()
    taken = locks.share(lock / "kernel-held")
    (lab.root / "uses" / "kernel-gone").touch()
    lab.age(lab.root / "uses" / "kernel-gone", 2)
    report = lab.collect()
    assert sorted(path.name for path in stage.iterdir()) == sorted([alive.name, fresh.name])
    assert [path.name for path in logs.iterdir()] == ["new.log"]
    assert [path.name for path in lock.iterdir()] == ["kernel-held"]
    assert not list((lab.root / "uses").iterdir())
    assert report.litter["abandoned stages"] == 2
    assert report.litter["old logs"] == 1
    assert held is not None and taken is not None
    os.close(held)
    os.close(taken)


def test_an_image_goes_with_its_object(lab: Lab) -> None:
    mine, kept = loose(1, "container"), lab.plan.container("web")
    for recipe in (mine, kept):
        lab.make(recipe, days=99)
        lab.engine.held[recipe.tag] = time.time()
    # Of another store, of nobody any more, and not ours at all.
    lab.engine.held |= {
        "fcbuild/other:0123456789ab": time.time() - 29 * DAY_S,
        "fcbuild/stale:0123456789ab": time.time() - 31 * DAY_S,
        "fcbuild/mine:latest": 0,
    }
    report = lab.collect(ALL, dry_run=True)
    assert len(lab.engine.held) == 5
    assert lab.collect(ALL).removed == report.removed
    assert lab.engine.held.keys() == {kept.tag, "fcbuild/other:0123456789ab", "fcbuild/mine:latest"}
    assert lab.engine.swept == 1  # not in the dry run


def test_an_engine_that_is_down_keeps_its_images(lab: Lab) -> None:
    lab.make(loose(1, "container"), days=99)
    lab.engine.down = True
    report = lab.collect()
    assert len(report.removed) == 1
    assert report.notes == ["no container engine answers: its images and containers are left"]


def test_no_store_is_nothing_to_collect(lab: Lab) -> None:
    shutil.rmtree(lab.root)
    assert lab.collect().removed == []
    assert not lab.root.exists()


Show = Callable[..., str]


@pytest.fixture
def shown() -> Show:
    def shown(report: Report, **options: Any) -> str:
        out = io.StringIO()
        gc.show(report, MONTH, **{"dry_run": False, "as_json": False, **options}, out=out)
        return out.getvalue()

    return shown


def test_what_went_is_shown(shown: Show) -> None:
    report = Report(
        removed=[Item("rootfs:web 0123", Path(), 3 * MIB, 0, "not used for 31 days")],
        in_use=[Item("rootfs:x 0123", Path(), 2 * MIB, 0, "not used for 40 days")],
        litter={"old logs": 2, "locks": 0},
        store=25 * GIB,
        kept=7,
        notes=["no engine"],
    )
    assert shown(report) == (
        "removed   rootfs:web 0123                            3 MiB  not used for 31 days\n"
        "in use    rootfs:x 0123                              2 MiB  not used for 40 days\n"
        "note      no engine\n"
        "freed     3 MiB, 2 old logs\n"
        "store     25.0 GiB of 20.0 GiB, 7 objects needed (what is needed is never removed)\n"
    )
    assert "would go  rootfs:web" in shown(report, dry_run=True)
    document = json.loads(shown(report, as_json=True))
    assert document["freed"] == 3 * MIB
    assert document["removed"] == [
        {"what": "rootfs:web 0123", "bytes": 3 * MIB, "why": "not used for 31 days"}
    ]
