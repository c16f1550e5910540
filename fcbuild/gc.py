"""Remove from the store what nobody needs any more: by age, then by size.

Kept, whatever its age: what the plan of this checkout names, what the links and receipts of any
checkout that uses the store lead to, and what those were made from. Of the rest goes what was not
used for `age`; and while objects and downloads together are larger than `size`, what was used
longest ago. Nothing goes that a process uses at the moment: the store's locks say so.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fcbuild import progress, tables
from fcbuild.build.engine import Engine
from fcbuild.dockerfile import LOCAL
from fcbuild.errors import SpecError, ToolMissing
from fcbuild.fingerprint import SHORT, Json
from fcbuild.plan import Plan
from fcbuild.recipes import Recipe
from fcbuild.store import Store, locks, manifest
from fcbuild.store.links import links_of

DAY_S = 24 * 3600.0
AGE = "30d"
SIZE = "20GiB"

Name = tuple[str, str]  # kind and fingerprint of an object

_IMAGES = ("base", "container")  # the kinds that the engine has an image of, too
_UNKNOWN_S = 30 * DAY_S
_OURS = re.compile(rf"{LOCAL}[^:]+:[0-9a-f]{{{SHORT}}}")
# Stages that are locked as long as somebody works there; those of an older fcbuild are not.
_LOCKED = re.compile(rf"(dropped|[a-z]+-[0-9a-f]{{{SHORT}}})-.*")
_AGE = re.compile(r"(\d{1,6})(min|h|d|w)|0")
_SECONDS = {"min": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may stay. age_s: since the last use, in seconds. size: of the store, in bytes."""

    age_s: float
    size: int


@dataclass(frozen=True)
class Item:
    """Something that takes room. used: its last use, in seconds since 1970. size: in bytes on the
    disk; 0 for a container image, whose layers may be another's."""

    title: str
    path: Path
    size: int
    used: float
    why: str = ""


@dataclass
class Report:
    """What a run did, or would do. store: the bytes of objects and downloads before.

    litter: what else went, by what it was: stages, logs, locks, notes, roots, containers.
    """

    removed: list[Item] = field(default_factory=list)
    in_use: list[Item] = field(default_factory=list)
    litter: dict[str, int] = field(default_factory=dict)
    store: int = 0
    kept: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def freed(self) -> int:
        return sum(item.size for item in self.removed)


def policy(age: str | None, size: str | None) -> Policy:
    """Return the policy that the command line asks for. Raises SpecError."""
    problems = []
    match = _AGE.fullmatch(age or AGE)
    if match is None:
        problems.append(f"age={age}: expected a time like 30d, 12h or 0")
    most = tables.size(size or SIZE) if size != "0" else 0
    if most is None:
        problems.append(f"size={size}: expected a size like 20GiB or 500MiB")
    if match is None or most is None:
        raise SpecError(problems)
    seconds = int(match[1]) * _SECONDS[match[2]] if match[1] else 0.0
    return Policy(age_s=seconds, size=most)


def choose(
    items: Sequence[Item], limits: Policy, *, total: int, now: float
) -> list[tuple[Item, str]]:
    """Return which of the items that nobody refers to go, and why. total: bytes of the store."""
    going = []
    for item in sorted(items, key=lambda item: item.used):
        unused = now - item.used
        if unused >= limits.age_s:
            going.append((item, f"not used for {_days(unused)}"))
        elif total > limits.size:
            going.append((item, f"the store is larger than {_bytes(limits.size)}"))
        else:
            continue
        total -= item.size
    return going


def collect(
    store: Store,
    plan: Plan,
    limits: Policy,
    *,
    pinned: Collection[str],
    engine: Engine,
    dry_run: bool,
) -> Report:
    """Remove what may go. pinned: the sha256 of downloads that this checkout asks for.

    Raises StoreError. An engine that does not answer keeps its images and containers.
    """
    now = time.time()
    report = Report()
    try:
        # First, because they may still write to the stages that killed runs have left.
        report.litter["containers of killed runs"] = engine.sweep(dry_run=dry_run)
    except ToolMissing as error:
        report.notes.append(f"{error.message}: its images and containers are left")
    recipes = {(recipe.kind, recipe.fingerprint) for recipe in _recipes(plan)}
    kept = _with_parents(store, recipes | set(_linked(store, report, dry_run=dry_run)))
    everything = [_object(store, directory) for directory in store.directories()]
    downloads = [*_downloads(store)]
    report.store = sum(item.size for item in [*everything, *downloads])
    report.kept = sum(_name(item.path) in kept for item in everything)
    tags = {item.path: _tag(item.path) for item in everything if _name(item.path)[0] in _IMAGES}
    loose = [item for item in everything if _name(item.path) not in kept]
    loose += [
        item
        for item in downloads
        if item.path.name not in pinned and now - item.used > min(DAY_S, limits.age_s)
    ]
    going = choose(loose, limits, total=report.store, now=now)
    with progress.step(f"gc: {len(everything)} objects, {len(going)} things to remove"):
        for item, why in going:
            progress.detail(item.title)
            gone = _drop(store, item, now, dry_run=dry_run)
            told = Item(item.title, item.path, item.size, item.used, why)
            (report.removed if gone else report.in_use).append(told)
        _litter(store, report, now=now, age_s=limits.age_s, dry_run=dry_run)
        dropped = {tags[item.path] for item in report.removed if item.path in tags}
        kept_tags = {recipe.tag for recipe in _recipes(plan)} | {*tags.values()} - dropped
        if not report.notes:
            try:
                _images(engine, report, kept_tags, dropped - kept_tags, now=now, dry_run=dry_run)
            except ToolMissing as error:
                report.notes.append(error.message)
    return report


def show(report: Report, limits: Policy, *, dry_run: bool, as_json: bool, out: IO[str]) -> None:
    """Print what went, or would go."""
    if as_json:
        json.dump(_document(report, dry_run=dry_run), out, indent=1)
        print(file=out)
        return
    word = "would go" if dry_run else "removed"
    for verb, items in ((word, report.removed), ("in use", report.in_use)):
        for item in items:
            size = _bytes(item.size) if item.size else ""
            print(f"{verb:<9} {item.title:<38} {size:>9}  {item.why}".rstrip(), file=out)
    for note in report.notes:
        print(f"note      {note}", file=out)
    litter = "".join(f", {number} {what}" for what, number in report.litter.items() if number)
    print(f"{'would free' if dry_run else 'freed':<9} {_bytes(report.freed)}{litter}", file=out)
    rest = report.store - (0 if dry_run else report.freed)
    over = " (what is needed is never removed)" if rest > limits.size and not dry_run else ""
    print(
        f"store     {_bytes(rest)} of {_bytes(limits.size)}, {report.kept} objects needed{over}",
        file=out,
    )


def _recipes(plan: Plan) -> Iterator[Recipe]:
    yield from plan.all()
    yield from (plan.container(name) for name in plan.specs.images)


def _with_parents(store: Store, names: set[Name]) -> set[Name]:
    """Return the names and those of all that they were made from."""
    found: set[Name] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += manifest.parents(store.root / "objects" / name[0] / name[1])
    return found


def _linked(store: Store, report: Report, *, dry_run: bool) -> Iterator[Name]:
    """Yield what the checkouts that use the store link to, or have receipts of."""
    report.litter["roots of checkouts that are gone"] = 0
    for root in store.roots():
        artifacts = Path(os.fsdecode(root.read_bytes()))
        if not artifacts.is_dir():
            report.litter["roots of checkouts that are gone"] += 1
            if not dry_run:
                store.discard(root)
            continue
        for link in links_of(artifacts):
            yield _name(link.readlink().parent)
        for receipt in (artifacts / "receipts").glob("*.json"):
            try:
                document = json.loads(receipt.read_bytes())
                for kind in ("kernel", "rootfs"):
                    yield kind, str(document[kind]["fingerprint"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not one of ours, or half a one: it keeps nothing


def _name(directory: Path) -> Name:
    return directory.parent.name, directory.name


def _object(store: Store, directory: Path) -> Item:
    size = sum(_size(path) for path in directory.iterdir())
    title = f"{_called(directory)} {directory.name[:SHORT]}"
    return Item(title, directory, size, store.uses.time(directory))


def _called(directory: Path) -> str:
    """Return kind and name of an object, as its recipe is called."""
    try:
        found = manifest.read(directory)
    except manifest.Damaged:
        found = None
    return f"{directory.parent.name}:{found.name if found else '?'}"


def _tag(directory: Path) -> str:
    return f"{LOCAL}{_called(directory).partition(':')[2]}:{directory.name[:SHORT]}"


def _downloads(store: Store) -> Iterator[Item]:
    for path in sorted((store.root / "downloads").glob("*")):
        try:
            size = sum(map(_size, path.rglob("*"))) if path.is_dir() else _size(path)
            yield Item(f"download {path.name[:SHORT]}", path, size, path.stat().st_mtime)
        except OSError:
            continue  # a fetch under way has moved it


def _size(path: Path) -> int:
    return path.lstat().st_blocks * 512  # what it takes, not what it seems: most are sparse


def _drop(store: Store, item: Item, now: float, *, dry_run: bool) -> bool:
    """Drop an object or a download; return whether it went. One that was used since gc looked may
    have been linked since."""
    if item.path.parent == store.root / "downloads":
        if not dry_run:
            store.discard(item.path)
        return True
    if not dry_run:
        return store.drop(item.path, used_after=now)
    return _free(item.path)


def _free(path: Path) -> bool:
    """Return whether nobody holds a lock on this at the moment."""
    lock = locks.claim(path)
    if lock is not None:
        os.close(lock)
    return lock is not None


def _litter(store: Store, report: Report, *, now: float, age_s: float, dry_run: bool) -> None:
    """Remove what killed runs leave, and what belongs to nothing any more."""
    objects = {store.uses.at(directory) for directory in store.directories()}

    def old(path: Path, seconds: float) -> bool:
        try:
            return now - path.lstat().st_mtime > seconds
        except OSError:
            return False

    def entries(part: str) -> Iterator[Path]:
        yield from sorted((store.root / part).glob("*"))

    stages = [p for p in entries("stage") if _LOCKED.fullmatch(p.name) or old(p, DAY_S)]
    logs = [path for path in entries("logs") if old(path, max(age_s, DAY_S))]
    notes = [path for path in entries("uses") if path not in objects and old(path, DAY_S)]
    abandoned = sum(_free(path) if dry_run else store.clear_stage(path) for path in stages)
    report.litter["abandoned stages"] = abandoned
    report.litter["old logs"] = len(logs)
    for path in [] if dry_run else [*logs, *notes]:
        store.discard(path)
    report.litter["locks"] = 0 if dry_run else sum(map(store.clear_lock, entries("locks")))


def _images(
    engine: Engine, report: Report, kept: set[str], dropped: set[str], *, now: float, dry_run: bool
) -> None:
    """Remove the images of dropped objects, and old ones that belong to no object. Others may share
    the engine, with stores of their own that we cannot see: so what is not known here stays for a
    month, whatever `age` says."""
    for tag, given in sorted(engine.images().items()):
        why = "its object went"
        if tag not in dropped:
            if tag in kept or now - given < _UNKNOWN_S or not _OURS.fullmatch(tag):
                continue
            why = f"made {_days(now - given)} ago, and of no object in the store"
        if not dry_run:
            try:
                engine.remove(tag)
            except ToolMissing as error:  # a container of the user's is made from it
                report.notes.append(error.message)
                continue
        report.removed.append(Item(f"image {tag}", Path(), 0, given, why))


def _document(report: Report, *, dry_run: bool) -> dict[str, Json]:
    def listed(items: list[Item]) -> list[Json]:
        return [{"what": i.title, "bytes": i.size, "why": i.why} for i in items]

    return {
        "dry_run": dry_run,
        "removed": listed(report.removed),
        "in_use": listed(report.in_use),
        "litter": dict(report.litter),
        "freed": report.freed,
        "store": report.store - (0 if dry_run else report.freed),
        "needed": report.kept,
        "notes": list(report.notes),
    }


def _bytes(number: int) -> str:
    if number < tables.GIB:
        return f"{-(-number // tables.MIB)} MiB"
    return f"{number / tables.GIB:.1f} GiB"


def _days(seconds: float) -> str:
    days = int(seconds // DAY_S)
    return f"{days} day{'' if days == 1 else 's'}" if days else "less than a day"
