"""What a build would do, and why, before it does anything: the rows of `doit plan`.

Needs neither an engine nor a network: the store and the links in artifacts/ are all it looks at.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fcbuild.plan import Plan
from fcbuild.reasons import History, why
from fcbuild.recipes import PRODUCTS, Recipe
from fcbuild.store import Artifact, Store, links_to

State = Literal["linked", "stored", "to build"]

_SHOWN = 3  # reasons, to people


@dataclass(frozen=True)
class Row:
    """One artifact. linked: artifacts/ links to it. reasons: why it is not what artifacts/ links
    to, or, where that is nothing, what was built last under its name."""

    recipe: Recipe
    state: State
    reasons: tuple[str, ...]


def rows(plan: Plan, store: Store, artifacts: Path, images: Sequence[str] | None) -> list[Row]:
    """Return a row for each artifact of the checkout, or for what these images stand on.

    Raises SpecError, StoreError, InputChanged.
    """
    history = History(store)
    recipes = list(plan.all()) if images is None else list(below(plan, images))
    return [_row(recipe, plan, store, artifacts, history) for recipe in recipes]


def below(plan: Plan, images: Collection[str]) -> Iterator[Recipe]:
    """Yield what images stand on, and they themselves, parents first."""
    bootable = [name for name in images if name in plan.bootable()]
    wanted: set[str] = set()
    for name in images:
        top = plan.rootfs(name) if name in bootable else plan.container(name)
        wanted.update(map(str, _with_parents(top)))
        if name in bootable:
            kernel = plan.kernel(plan.specs.images[name].kernel)
            wanted.update(map(str, _with_parents(kernel)))
    yield from (recipe for recipe in plan.all() if str(recipe) in wanted)


def text(found: Sequence[Row]) -> Iterator[str]:
    """Yield the lines for people."""
    width = max([24, *(len(str(row.recipe)) for row in found)])
    yield f"{'':<{width}} {'fingerprint':<12}  {'state':<8}  reason".rstrip()
    for row in found:
        shown = list(row.reasons[:_SHOWN])
        if more := len(row.reasons) - len(shown):
            shown.append(f"and {more} more")
        line = f"{row.recipe!s:<{width}} {row.recipe.short}  {row.state:<8}"
        yield f"{line}  {shown[0] if shown else ''}".rstrip()
        yield from (f"{'':<{width + 26}}{reason}" for reason in shown[1:])


def document(found: Sequence[Row]) -> str:
    """Return the JSON for machines."""
    return json.dumps(
        {
            "artifacts": [
                {
                    "name": str(row.recipe),
                    "fingerprint": row.recipe.fingerprint,
                    "state": row.state,
                    "reasons": list(row.reasons),
                }
                for row in found
            ]
        },
        indent=1,
    )


def matrix(plan: Plan, found: Sequence[Row]) -> str:
    """Return what is missing as the matrix of a CI job, on one line: an entry for each kernel, so
    that no two jobs build the same one, with the tasks to hand to doit."""
    groups: dict[str, dict[str, Any]] = {}
    for row in found:
        recipe = row.recipe
        if row.state != "to build" or recipe.kind not in PRODUCTS:
            continue
        own = recipe.kind == "kernel"
        kernel = recipe.name if own else plan.specs.images[recipe.name].kernel
        arch = plan.specs.kernels[kernel].arch
        empty: dict[str, Any] = {"kernel": kernel, "arch": arch, "images": [], "tasks": []}
        entry = groups.setdefault(kernel, empty)
        entry["tasks"].append(str(recipe))
        if not own:
            entry["images"].append(recipe.name)
    include = [
        {**groups[kernel], **{key: sep.join(groups[kernel][key]) for key, sep in _JOINED.items()}}
        for kernel in sorted(groups)
    ]
    return json.dumps({"include": include}, separators=(",", ":"))


# Strings, as the command line takes them: image=A,B and TASK TASK.
_JOINED = {"images": ",", "tasks": " "}


def _row(recipe: Recipe, plan: Plan, store: Store, artifacts: Path, history: History) -> Row:
    found = store.find(recipe)
    if recipe.kind not in PRODUCTS:
        if found:
            return Row(recipe, "stored", ())
        return Row(recipe, "to build", tuple(why(recipe, plan, history) or [_NEVER]))
    file, place = recipe.product
    at = artifacts / place
    if found and links_to(at, found, file):
        return Row(recipe, "linked", ())
    linked = _linked(at, recipe, history)
    if found:
        return Row(recipe, "stored", tuple(why(recipe, plan, history, linked) if linked else ()))
    return Row(recipe, "to build", tuple(why(recipe, plan, history, linked) or [_NEVER]))


_NEVER = "not built yet"


def _linked(at: Path, recipe: Recipe, history: History) -> Artifact | None:
    """Return the object that artifacts/ links to, if it is one of the store's."""
    try:
        target = at.readlink()
    except OSError:
        return None
    return history.get(recipe.kind, target.parent.name)


def _with_parents(recipe: Recipe) -> Iterator[Recipe]:
    yield recipe
    for parent in recipe.parents:
        yield from _with_parents(parent)
