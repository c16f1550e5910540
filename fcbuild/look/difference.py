"""How two root filesystems differ: files, packages, boot config."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from fcbuild.fingerprint import SHORT
from fcbuild.look import bootrecords, inspection, packages
from fcbuild.look.entry import Entry, order
from fcbuild.look.packages import Packages
from fcbuild.look.text import described, plural, visible
from fcbuild.look.tree import Tree
from fcbuild.store import Artifact

SHOWN = 20  # lines of a group, unless all are asked for

Aspect = Literal["type", "content", "target", "device", "mode", "owner", "xattrs", "links"]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is compared. entries, digests (sha256 of files): by path. boot: values by key."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    packages: Packages = field(default_factory=dict)
    boot: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """An entry that both have, and in what it differs."""

    old: Entry
    new: Entry
    aspects: tuple[Aspect, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What b has that a has not, and so on. Paths in the order of a walk.

    touched: entries that differ in nothing but their modification time. packages: by manager and
    name, and boot, by key: what a has and what b has.
    """

    added: tuple[Entry, ...] = ()
    removed: tuple[Entry, ...] = ()
    changed: tuple[Change, ...] = ()
    touched: tuple[Entry, ...] = ()
    packages: Mapping[tuple[str, str], tuple[str | None, str | None]] = field(default_factory=dict)
    boot: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        parts = (self.added, self.removed, self.changed, self.touched, self.packages, self.boot)
        return any(parts)


def compare(a: Contents, b: Contents) -> Difference:
    """Return how b differs from a."""
    common = sorted(a.entries.keys() & b.entries.keys(), key=order)
    changed, touched = [], []
    for path in common:
        old, new = a.entries[path], b.entries[path]
        same = a.digests.get(path) == b.digests.get(path)
        if aspects := tuple(_aspects(old, new, same_bytes=same)):
            changed.append(Change(old, new, aspects))
        elif old.mtime != new.mtime:
            touched.append(new)
    versions = {
        key: (a.packages.get(key), b.packages.get(key))
        for key in sorted(a.packages.keys() | b.packages.keys())
    }
    records = {key: (a.boot.get(key, ()), b.boot.get(key, ())) for key in {**a.boot, **b.boot}}
    return Difference(
        added=_without(b.entries, a.entries),
        removed=_without(a.entries, b.entries),
        changed=tuple(changed),
        touched=tuple(touched),
        packages={key: both for key, both in versions.items() if both[0] != both[1]},
        boot={key: both for key, both in records.items() if both[0] != both[1]},
    )


def _without(entries: Mapping[str, Entry], others: Mapping[str, Entry]) -> tuple[Entry, ...]:
    return tuple(entries[path] for path in sorted(entries.keys() - others.keys(), key=order))


def _aspects(old: Entry, new: Entry, *, same_bytes: bool) -> Iterator[Aspect]:
    if old.kind != new.kind:
        yield "type"
    elif old.kind == "file" and not (same_bytes and old.size == new.size):
        yield "content"
    if old.target != new.target and old.kind == new.kind:
        yield "target"
    if old.device != new.device and old.kind == new.kind:
        yield "device"
    if old.permissions != new.permissions:
        yield "mode"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield "owner"
    if old.xattrs != new.xattrs:
        yield "xattrs"
    # A directory's links are the directories in it, which are entries of their own.
    if old.links != new.links and "directory" not in (old.kind, new.kind):
        yield "links"


def contents(tree: Tree) -> Contents:
    """Return what is to be compared of a tree."""
    boot = inspection.boot_records(tree)
    return Contents(
        entries=tree.entries,
        digests=tree.reader.digests(),
        packages=packages.installed(tree),
        boot=boot.values if boot else {},
    )


def show(
    a: Artifact, b: Artifact, found: Difference, *, everything: bool, as_json: bool, out: TextIO
) -> None:
    """Write a difference, for people or as JSON."""
    if as_json:
        print(json.dumps({"a": _named(a), "b": _named(b), **document(found)}), file=out)
        return
    print(f"a  {a.name}  {a.fingerprint[:SHORT]}", file=out)
    print(f"b  {b.name}  {b.fingerprint[:SHORT]}", file=out)
    out.writelines(f"{line}\n" for line in lines(found, everything=everything))


def lines(found: Difference, *, everything: bool) -> Iterator[str]:
    """Yield a difference for people: groups, each with its count and its first lines."""
    if not found:
        yield "no difference"
    groups = [
        ("boot config", [x for key, both in found.boot.items() for x in _boot_lines(key, *both)]),
        ("packages", [_package_line(*key, *both) for key, both in found.packages.items()]),
        ("removed", _subtrees("-", found.removed, everything=everything)),
        ("added", _subtrees("+", found.added, everything=everything)),
        ("changed", [f"~ {visible(c.new.path)}: {_change(c)}" for c in found.changed]),
    ]
    counts = {"removed": len(found.removed), "added": len(found.added)}
    for title, listed in groups:
        if listed:
            yield f"{title}: {counts.get(title, len(listed))}"
            yield from _cut(listed, everything=everything)
    if found.touched:
        yield f"another modification time only: {len(found.touched)}"
        if everything:
            yield from (f"  ~ {visible(entry.path)}" for entry in found.touched)


def document(found: Difference) -> dict[str, Any]:
    """Return a difference for machines."""
    return {
        "added": [described(entry) for entry in found.added],
        "removed": [described(entry) for entry in found.removed],
        "changed": [
            {
                "path": change.new.path,
                "aspects": list(change.aspects),
                "a": described(change.old),
                "b": described(change.new),
            }
            for change in found.changed
        ],
        "touched": [entry.path for entry in found.touched],
        "packages": [
            {"manager": manager, "name": name, "a": old, "b": new}
            for (manager, name), (old, new) in found.packages.items()
        ],
        "boot": [{"key": key, "a": old, "b": new} for key, (old, new) in found.boot.items()],
    }


def _named(artifact: Artifact) -> dict[str, str]:
    return {"image": artifact.name, "fingerprint": artifact.fingerprint}


def _cut(listed: list[str], *, everything: bool) -> Iterator[str]:
    shown = listed if everything else listed[:SHOWN]
    yield from (f"  {line}" for line in shown)
    if len(shown) < len(listed):
        yield f"  ... and {len(listed) - len(shown)} more (--all shows them)"


def _subtrees(sign: str, entries: tuple[Entry, ...], *, everything: bool) -> list[str]:
    """Return a line for each entry, or, for short, one for each whole directory."""
    if everything:
        return [f"{sign} {_shown(entry)}" for entry in entries]
    tops: list[tuple[Entry, int]] = []
    for entry in entries:
        if tops and entry.path.startswith(f"{tops[-1][0].path}/"):
            tops[-1] = (tops[-1][0], tops[-1][1] + 1)
        else:
            tops.append((entry, 0))
    return [
        f"{sign} {_shown(entry)}" + (f" with {plural(below, 'entry', 'entries')}" if below else "")
        for entry, below in tops
    ]


def _shown(entry: Entry) -> str:
    ends = {"directory": "/", "link": f" -> {visible(entry.target)}"}
    return visible(entry.path) + ends.get(entry.kind, "")


def _change(change: Change) -> str:
    old, new = change.old, change.new
    values = {
        "type": (old.kind, new.kind),
        "target": (visible(old.target), visible(new.target)),
        "device": (old.device, new.device),
        "mode": (f"{old.permissions:04o}", f"{new.permissions:04o}"),
        "owner": (f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}"),
        "links": (old.links, new.links),
    }
    words = []
    for aspect in change.aspects:
        if aspect == "content":
            words.append("content" if old.size == new.size else f"content, {_sizes(old, new)}")
        elif aspect == "xattrs":
            names = {*old.xattrs, *new.xattrs}
            differing = sorted(n for n in names if old.xattrs.get(n) != new.xattrs.get(n))
            words.append(f"xattrs {' '.join(map(visible, differing))}")
        else:
            words.append("{} {} -> {}".format(aspect, *values[aspect]))
    return ", ".join(words)


def _sizes(old: Entry, new: Entry) -> str:
    return f"{old.size} -> {plural(new.size, 'byte')}"


def _package_line(manager: str, name: str, old: str | None, new: str | None) -> str:
    sign, version = (
        ("+", new) if old is None else ("-", old) if new is None else ("~", f"{old} -> {new}")
    )
    return visible(f"{sign} {name} {version}") + f" ({manager})"


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    return (shlex.join(words),) if words else ()


def _boot_lines(key: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[str]:
    if key in bootrecords.COMMANDS:
        old, new = _command(old), _command(new)
    if len(old) == len(new) == 1:
        yield f"~ {key}: {visible(old[0])} -> {visible(new[0])}"
        return
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    for sign, values in (("-", gone), ("+", come)):
        for value in values.elements():
            yield f"{sign} {key}: {visible(value)}" if value else f"{sign} {key}"
    if not gone and not come:
        yield f"~ {key}: in another order"
