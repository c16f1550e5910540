"""Why an artifact is not what it was: the differences between two sets of inputs, in words.

The store keeps the inputs of what it holds. Those of an earlier object are compared with the
plan's, and where a parent has moved, the parent's with what that was made from, and so on down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fcbuild import kconfig, lock
from fcbuild.errors import StoreError
from fcbuild.fingerprint import Json
from fcbuild.plan import EPOCH_ARG, TOOLCHAIN, Plan
from fcbuild.recipes import Recipe
from fcbuild.series import KernelSpec
from fcbuild.store import Artifact, Store

# What kernel objects hold to explain the next: the fragments' texts, by name.
FRAGMENTS = "fragments.json"
_CONFIG = "config"  # and the final config, which says less

_MAX_BYTES = 16 << 20
_SHOWN = 40  # characters of a value
_DIGEST = len("sha256:") + 12

# Inputs that are files of our own.
_FILES = {"dockerfile": "images/{name}/Dockerfile"}

Inputs = Mapping[str, Any]


class History:
    """What the store has under each name. Every directory is looked through once."""

    def __init__(self, store: Store) -> None:
        self._objects = cache(lambda kind: _objects(store, kind))

    def latest(self, recipe: Recipe) -> Artifact | None:
        """Return the newest object of this kind and name."""
        found = self._objects(recipe.kind).values()
        return next((artifact for artifact in found if artifact.name == recipe.name), None)

    def get(self, kind: str, fingerprint: str) -> Artifact | None:
        return self._objects(kind).get(fingerprint)


def why(recipe: Recipe, plan: Plan, history: History, since: Artifact | None = None) -> list[str]:
    """Return why a recipe does not make the object that there was: `since`, or else the newest of
    its name. Nothing where there was none, or where it is not known any more."""
    old = since or history.latest(recipe)
    if old is None or old.fingerprint == recipe.fingerprint:
        return []
    return list(dict.fromkeys(_differences(recipe, old, plan, history)))


def _differences(recipe: Recipe, old: Artifact, plan: Plan, history: History) -> Iterator[str]:
    was = inputs(old)
    if was is None:
        return
    now: Inputs = json.loads(json.dumps(recipe.document))
    if was == now:
        yield f"how {recipe.kind} artifacts are made"
    for key in sorted(was.keys() | now.keys()):
        before, after = was.get(key), now.get(key)
        # The image's time is that of a lock, which is a reason of its own.
        if before == after or key == "epoch":
            continue
        if key == "parents":
            yield from _parents(recipe, before or {}, plan, history)
        elif key == "context":
            yield from _files(f"images/{recipe.name}", before or {}, after or {})
        elif key == "sources" and recipe.kind == "kernel":
            yield f"kernel source: {_versions(before)} -> {_versions(after)}"
        elif key == "sources":
            yield from _files(f"fcbuild/{recipe.name}", before or {}, after or {})
        elif key == "fragments":
            yield from _fragments(plan, recipe.name, old, before or {}, after or {})
        elif key == "order":
            if sorted(before or ()) == sorted(after or ()):
                yield f"kernel fragments: in the order {', '.join(after or ())}"
        elif key == "patches":
            yield from _patches(before or [], after or [])
        elif key == "lock":
            yield from _lock(before, after)
        elif key == "packages":
            asked, had = set(after or ()), set(before or ())
            yield from (f"package {name} asked for" for name in sorted(asked - had))
            yield from (f"package {name} not asked for any more" for name in sorted(had - asked))
        elif key in ("args", "images"):
            what = "build arg" if key == "args" else "image"
            yield from _entries(what, before or {}, after or {}, shown=key == "images")
        elif key not in was or key not in now:
            yield f"how {recipe.kind} artifacts are made: {key} {'added' if key in now else 'gone'}"
        elif key in _FILES:
            yield f"changed: {_FILES[key].format(name=recipe.name)}"
        else:
            yield f"{key.replace('_', ' ')}: {_shown(before)} -> {_shown(after)}"


def inputs(artifact: Artifact) -> Inputs | None:
    """Return the inputs of an object, or None where they cannot be read."""
    found = _json(artifact, "inputs.json")
    return found if isinstance(found, dict) else None


def _parents(recipe: Recipe, before: Inputs, plan: Plan, history: History) -> Iterator[str]:
    now = {str(parent): parent for parent in recipe.parents}
    for key, parent in now.items():
        if before.get(key) == parent.fingerprint:
            continue
        if key not in before:
            yield f"upon {_called(parent.kind, parent.name)}, which is new"
            continue
        old = history.get(parent.kind, str(before[key]))
        lines = list(_differences(parent, old, plan, history)) if old else []
        if recipe.kind == "rootfs" and parent.kind == "container":
            yield from lines or [f"container image {parent.name}"]
        else:
            called = _called(parent.kind, parent.name)
            yield from (f"{called}: {line}" for line in lines) if lines else [called]
    for key in before.keys() - now.keys():
        kind, _, name = key.partition(":")
        yield f"no more upon {_called(kind, name)}"


def _called(kind: str, name: str) -> str:
    if kind == "base":
        return TOOLCHAIN if name == TOOLCHAIN else f"base {name}"
    return {"container": f"image {name}", "init": "PID 1"}.get(kind, f"{kind} {name}")


def _files(directory: str, before: Inputs, after: Inputs) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        was, now = str(before.get(name, "")), str(after.get(name, ""))
        if was == now:
            continue
        word = "changed" if was and now else "added" if now else "removed"
        mode = ""
        if was and now and was.partition(" ")[2] == now.partition(" ")[2] != "":
            mode = " (executable)" if now.startswith("exec") else " (not executable)"
        yield f"{word}: {directory}/{name}{mode}"


def _fragments(
    plan: Plan, kernel: str, old: Artifact, before: Inputs, after: Inputs
) -> Iterator[str]:
    spec = plan.specs.kernels[kernel]
    texts = {p.name: p for p in spec.fragments} if isinstance(spec, KernelSpec) else {}
    kept = _json(old, FRAGMENTS)
    for name in sorted(before.keys() | after.keys()):
        called = f"kernel fragment {name}"
        if name not in before or name not in after:
            yield f"{called} {'added' if name in after else 'removed'}"
        elif before[name] != after[name]:
            try:
                now = kconfig.options(texts[name].read_text("utf-8"))
            except (OSError, ValueError):
                now = {}
            if isinstance(kept, dict) and name in kept:
                lines = kconfig.changes(kconfig.options(str(kept[name])), now)
                yield from (f"{called}: {line}" for line in lines or ["not in its options"])
                continue
            # The config that came of all: what is new in a fragment shows, what is gone does not.
            config = kconfig.options(_text(old, _CONFIG) or "")
            was = {name: config[name] for name in now if config.get(name, "n") != "n"}
            on = {name: value for name, value in now.items() if value != "n" or name in was}
            lines = kconfig.changes(was, on)
            yield from [f"{called}: {line}" for line in lines if config] or [f"{called} changed"]


def _patches(before: list[str], after: list[str]) -> Iterator[str]:
    was, now = (dict(line.split(" ", 1) for line in lines) for lines in (before, after))
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) != now.get(name):
            word = "changed" if name in was and name in now else "added" if name in now else "gone"
            yield f"kernel patch {name} {word}"
    if was == now:
        yield f"kernel patches: in the order {', '.join(now)}"


def _lock(before: Any, after: Any) -> Iterator[str]:
    if not before or not after:
        yield "locked" if after else "not locked any more"
        return
    lines = lock.differences(before["packages"], after["packages"])
    yield from (f"package {line}" for line in lines)
    if not lines:
        yield "locked at another time"


def _entries(what: str, before: Inputs, after: Inputs, *, shown: bool) -> Iterator[str]:
    """Name entries of a table. Values of build args are not shown: people do put secrets there."""
    for name in sorted(before.keys() | after.keys()):
        if name == EPOCH_ARG:
            continue
        if name not in before or name not in after:
            yield f"{what} {name} {'added' if name in after else 'removed'}"
        elif before[name] != after[name]:
            values = [str(value or "not locked")[:_DIGEST] for value in (before[name], after[name])]
            yield f"{what} {name}" + (f": {' -> '.join(values)}" if shown else " changed")


def _versions(sources: Any) -> str:
    return ", ".join(str(source.get("version")) for source in sources or ()) or "none"


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _json(artifact: Artifact, file: str) -> Any:
    text = _text(artifact, file)
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _text(artifact: Artifact, file: str) -> str | None:
    try:
        with artifact.file(file).open("rb") as opened:
            return opened.read(_MAX_BYTES).decode("utf-8")
    except (OSError, ValueError):
        return None


def _objects(store: Store, kind: str) -> dict[str, Artifact]:
    try:
        return {artifact.fingerprint: artifact for artifact in store.objects(kind)}
    except StoreError:
        return {}  # whoever needs the damaged one says so
