"""Why an artifact is built anew, in words; and the plan, its rows and its matrix."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fcbuild import preview, reasons, spec
from fcbuild.plan import Plan
from fcbuild.recipes import PRODUCTS, Recipe
from fcbuild.series import KernelSpec
from fcbuild.store import Stage, Store, link
from tests.unit.test_plan import LOCK, edit, image, package

__all__ = ["package"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def keep(checkout: Path, store: Store) -> None:
    """Have everything in the store, and the products linked, as a build leaves them."""
    plan = Plan(spec.load(checkout))
    for recipe in [*plan.all(), *map(plan.container, plan.specs.images)]:
        keep_one(plan, recipe, store)
        if recipe.kind in PRODUCTS:
            file, place = recipe.product
            link(store.need(recipe), file, checkout / "artifacts" / place)


def keep_one(plan: Plan, recipe: Recipe, store: Store) -> None:
    def build(stage: Stage) -> None:
        stage.file("payload").write_text(str(recipe))
        if recipe.kind == "kernel":
            kernel = plan.specs.kernels[recipe.name]
            fragments = kernel.fragments if isinstance(kernel, KernelSpec) else ()
            texts = {path.name: path.read_text() for path in fragments}
            stage.file(reasons.FRAGMENTS).write_text(json.dumps(texts))
            stage.file("config").write_text("".join(texts.values()))

    store.obtain(recipe, build)


def rows(checkout: Path, store: Store, images: list[str] | None = None) -> list[preview.Row]:
    return preview.rows(Plan(spec.load(checkout)), store, checkout / "artifacts", images)


def why(checkout: Path, store: Store) -> dict[str, list[str]]:
    found = rows(checkout, store)
    return {str(row.recipe): list(row.reasons) for row in found if row.state == "to build"}


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda checkout: (checkout / name).write_text(text)


def replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda checkout: edit(checkout / name, old, new)


NET = "kernels/fragments/net.config"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            replace("images/web/index.html", "Hi", "Ho"),
            {"rootfs:web": ["changed: images/web/index.html"]},
        ),
        (write("images/web/new", ""), {"rootfs:web": ["added: images/web/new"]}),
        (
            lambda checkout: (checkout / "images/web/index.html").chmod(0o755),
            {"rootfs:web": ["changed: images/web/index.html (executable)"]},
        ),
        (
            replace("images/web/image.toml", '"1"', '"2"'),
            {"rootfs:web": ["build arg VERSION changed"]},
        ),
        (
            replace("images/tool/image.toml", "64MiB", "65MiB"),
            {"rootfs:tool": ["size: 67108864 -> 68157440"]},
        ),
        (
            replace(NET, "NET=y\n", "NET=y\nCONFIG_IPV6=y\n"),
            {"kernel:6.12": ["kernel fragment net.config: CONFIG_IPV6=y added"]},
        ),
        (
            replace(NET, "CONFIG_NET=y\n", ""),
            {"kernel:6.12": ["kernel fragment net.config: CONFIG_NET=y removed"]},
        ),
        (
            replace(NET, "NET=y", "NET=m"),
            {"kernel:6.12": ["kernel fragment net.config: CONFIG_NET=y -> m"]},
        ),
        (
            replace(NET, "CONFIG_NET", "# words\nCONFIG_NET"),
            {"kernel:6.12": ["kernel fragment net.config: not in its options"]},
        ),
        (
            replace("kernels/6.12/kernel.toml", '"base", "net"', '"net", "base"'),
            {"kernel:6.12": ["kernel fragments: in the order net.config, base.config"]},
        ),
        (
            replace("kernels/6.12/kernel.toml", '["base", "net"]', '["base"]'),
            {"kernel:6.12": ["kernel fragment net.config removed"]},
        ),
        (
            replace("kernels/tiny/kernel.toml", '"6.12.2"', '"6.12.3"'),
            {"kernel:tiny": ["kernel source: 6.12.2 -> 6.12.3"]},
        ),
        (
            replace("images/lock.toml", "8.1-1", "8.1-2"),
            {
                "base:base": ["package curl 8.1-1 -> 8.1-2"],
                "rootfs:web": ["base base: package curl 8.1-1 -> 8.1-2"],
            },
        ),
        (
            replace("images/lock.toml", "2026-01-01", "2026-01-02"),
            {
                "base:base": ["locked at another time"],
                "rootfs:web": ["base base: locked at another time"],
            },
        ),
    ],
)
def test_the_reason_names_what_changed(
    checkout: Path, store: Store, change: Callable[[Path], object], expected: dict[str, list[str]]
) -> None:
    (checkout / "images/lock.toml").write_text(LOCK)
    keep(checkout, store)
    assert why(checkout, store) == {}
    change(checkout)
    assert why(checkout, store) == expected


def test_a_change_of_pid_1_is_named_with_its_file(
    checkout: Path, store: Store, package: Path
) -> None:
    keep(checkout, store)
    edit(package / "guest/init.c", "main", "start")
    changed = "changed: fcbuild/guest/init.c"
    assert why(checkout, store) == {
        "init:guest": [changed],
        "rootfs:tool": [f"PID 1: {changed}"],
        "rootfs:web": [f"PID 1: {changed}"],
    }


def test_an_older_kernel_is_explained_by_its_config(
    checkout: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(checkout, store)
    monkeypatch.setattr(reasons, "FRAGMENTS", "none.json")
    edit(checkout / NET, "CONFIG_NET=y\n", "CONFIG_NET=y\nCONFIG_IPV6=y\n")
    assert why(checkout, store) == {
        "kernel:6.12": ["kernel fragment net.config: CONFIG_IPV6=y added"]
    }
    edit(checkout / NET, "CONFIG_NET=y\nCONFIG_IPV6=y\n", "")
    assert why(checkout, store) == {"kernel:6.12": ["kernel fragment net.config changed"]}


def test_an_image_below_is_named_with_what_moved_it(checkout: Path, store: Store) -> None:
    image(checkout, "top", "FROM fcbuild/web\n")
    keep(checkout, store)
    edit(checkout / "images/web/index.html", "Hi", "Ho")
    assert why(checkout, store)["rootfs:top"] == ["image web: changed: images/web/index.html"]


def test_states_and_what_an_earlier_input_gives(checkout: Path, store: Store) -> None:
    def state(name: str) -> tuple[str, tuple[str, ...]]:
        return next((r.state, r.reasons) for r in rows(checkout, store) if str(r.recipe) == name)

    assert state("rootfs:web") == ("to build", ("not built yet",))
    keep(checkout, store)
    assert state("rootfs:web") == ("linked", ())
    assert state("init:guest") == ("stored", ())
    edit(checkout / "images/web/index.html", "Hi", "Ho")
    keep(checkout, store)
    edit(checkout / "images/web/index.html", "Ho", "Hi")
    assert state("rootfs:web") == ("stored", ("changed: images/web/index.html",))
    # Told against what artifacts/ links to, whatever was built last.
    edit(checkout / "images/web/index.html", "Hi", "Ha")
    edit(checkout / "images/web/Dockerfile", "serve", "run")
    os.utime(store.root, None)
    assert state("rootfs:web")[1] == (
        "changed: images/web/Dockerfile",
        "changed: images/web/index.html",
    )


def test_an_image_stands_on_its_own_things(checkout: Path, store: Store) -> None:
    assert [str(row.recipe) for row in rows(checkout, store, ["tool"])] == [
        "base:toolchain",
        "init:guest",
        "kernel:6.12",
        "rootfs:tool",
    ]
    assert [str(row.recipe) for row in rows(checkout, store, ["base"])] == ["base:base"]


def test_the_matrix_has_what_is_missing_by_kernel(checkout: Path, store: Store) -> None:
    plan = Plan(spec.load(checkout))
    text = preview.matrix(plan, rows(checkout, store))
    assert text.count("\n") == 0
    assert json.loads(text)["include"] == [
        {
            "kernel": "6.12",
            "arch": "x86_64",
            "images": "tool,web",
            "tasks": "kernel:6.12 rootfs:tool rootfs:web",
        },
        {"kernel": "tiny", "arch": "x86_64", "images": "", "tasks": "kernel:tiny"},
    ]
    keep(checkout, store)
    assert preview.matrix(plan, rows(checkout, store)) == '{"include":[]}'
    edit(checkout / "images/tool/tool", "true", "false")
    plan = Plan(spec.load(checkout))
    (entry,) = json.loads(preview.matrix(plan, rows(checkout, store)))["include"]
    assert (entry["tasks"], entry["images"]) == ("rootfs:tool", "tool")


def test_the_table_and_the_json_say_the_same(checkout: Path, store: Store) -> None:
    for number in range(5):
        (checkout / f"images/web/{number}").touch()
    keep(checkout, store)
    for number in range(5):
        (checkout / f"images/web/{number}").write_text("x")
    found = rows(checkout, store)
    document = json.loads(preview.document(found))["artifacts"]
    assert document[-1] == {
        "name": "rootfs:web",
        "fingerprint": found[-1].recipe.fingerprint,
        "state": "to build",
        "reasons": [f"changed: images/web/{number}" for number in range(5)],
    }
    lines = list(preview.text(found))
    assert lines[-4].startswith(
        f"rootfs:web               {found[-1].recipe.short}  to build  changed"
    )
    assert lines[-1].strip() == "and 2 more"


GUEST = Recipe("init", "guest", {"sources": {"a": "1"}})


def test_what_was_built_last_is_the_newest_of_that_name(store: Store) -> None:
    assert reasons.History(store).latest(GUEST) is None
    for number, name in enumerate(["guest", "guest", "other"]):
        made, _ = store.obtain(Recipe("init", name, {"n": number}), lambda stage: None)
        os.utime(made.directory, (number, number))
    found = reasons.History(store).latest(GUEST)
    assert found and reasons.inputs(found) == Recipe("init", "guest", {"n": 1}).document


@pytest.mark.parametrize("file", ["manifest.json", "inputs.json"])
def test_a_damaged_object_does_not_stop_the_explanation(
    checkout: Path, store: Store, file: str
) -> None:
    made, _ = store.obtain(Recipe("init", "guest", {"n": 1}), lambda stage: None)
    made.file(file).chmod(0o600)
    made.file(file).write_text("[")
    assert reasons.why(GUEST, Plan(spec.load(checkout)), reasons.History(store)) == []
