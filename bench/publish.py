"""Measure publishing: beside skopeo, which copies the same blobs, and how much memory it takes.

    .venv/bin/python -m bench.publish [SECTION...] [--runs N] [--json] [--check]

    transfer   blobs of a disk to a registry and from it, by us and by skopeo
    publish    the same with what only we do: compressing, and on the way back writing the disk
    change     a line of debian-web's page is another: the bytes that are shipped for it
    memory     the most memory of publish, pull, cache and delta, of a disk of 4 GiB

Method. The registry is Debian's docker-registry, on loopback, on the same disk. The two sides of a
ratio take turns, each into a repository of its own; shown is the median of the pairs' ratios, and
the medians of the times that they come from. Memory is that of a process of its own, at its most.

Cost: transfer and publish move 130 MiB each way and run; memory needs 7 GiB of disk.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.pipeline import ROOT, STORE, Checkout, Finding, arguments, python, ratio, report, timed
from fcbuild import recipes, spec
from fcbuild.plan import Plan
from fcbuild.publish import bundle, cache, delta, oci, pack, patch, predecessor, pull, push
from fcbuild.publish.bundle import Bundle
from fcbuild.publish.oci import Index, Manifest
from fcbuild.publish.reference import Reference, parse
from fcbuild.publish.registry import Registry
from fcbuild.recipes import ROOTFS_FILE, Kind, Recipe
from fcbuild.run import run
from fcbuild.store import Artifact, Stage, Store
from tests import registry as registries

MIB = 1 << 20
DISK = 2048 * MIB  # of the transfers
BIG = 4096 * MIB
COPY_TIMEOUT_S = 600.0

# The project's own targets: times, percent, MiB.
MOST_COPY = 1.2
MOST_CHANGE = 1.0
MOST_MEMORY = 200


class Stand:
    """A directory that is gone afterwards, for stores and registries."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = 0

    def fresh(self, name: str) -> Path:
        """Return a directory that nobody has used."""
        self._count += 1
        found = self.directory / f"{name}-{self._count}"
        found.mkdir()
        return found

    @contextmanager
    def registry(self) -> Iterator[Reference]:
        """Run a registry that holds nothing. Each copy has one of its own: skopeo knows what blobs
        it has seen in which, and would have them linked there."""
        with registries.serve(self.fresh("registry")) as hub:
            yield Reference(hub.host, "bench", "1")


@contextmanager
def stand() -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        yield Stand(Path(scratch))


def image(store: Store, size: int, version: int) -> Bundle:
    """Return an image of a made-up disk: of 16 parts, one is noise, three are text, the others
    holes. In version 2 a file in the middle has another line, and one block more."""
    kernel = _made(store, "kernel", {"vmlinux": lambda to: to.write_bytes(b"\x7fELF" * MIB)})
    disk = _made(store, "rootfs", {ROOTFS_FILE: lambda to: _disk(to, size, version)}, version)
    specs = spec.load(ROOT)
    return bundle.of(specs.images["debian-web"], kernel, disk)


def _made(
    store: Store,
    kind: Kind,
    files: Mapping[str, Callable[[Path], object]],
    version: int = 1,
) -> Artifact:
    facts = {"size": version}
    recipe = recipes.taken(kind, "bench", "x86_64", {name: "0" * 64 for name in files}, facts)

    def build(stage: Stage) -> None:
        for name, write in files.items():
            write(stage.file(name))
        stage.facts.update(facts)

    return store.obtain(recipe, build)[0]


def _disk(to: Path, size: int, version: int) -> None:
    parts = size // (16 * MIB)
    with to.open("wb") as file:
        for number in range(parts):
            file.write(random.Random(number).randbytes(MIB))
            file.write((b"file %d has this line\n" % number * MIB)[: 3 * MIB])
            if version > 1 and number == parts // 2:
                file.write(b"and this one\n" + bytes(4096 - 13))
            file.seek(12 * MIB, 1)
        file.truncate(size)


def transfer(runs: int) -> Iterator[Finding]:
    """The same blobs, by us and by skopeo."""
    ours: dict[str, list[float]] = {"push": [], "pull": []}
    others: dict[str, list[float]] = {"push": [], "pull": []}
    with stand() as here:
        made = image(Store(here.fresh("store")), DISK, 1)
        blobs = [pack.pack(file, here.directory) for file in made.files]
        layout = f"oci:{here.fresh('layout')}:1"
        with here.registry() as first:
            _upload(made, first, blobs)
            _skopeo(f"docker://{first}", layout)
        for _ in range(runs):
            with here.registry() as there:
                others["push"].append(timed(_skopeo, layout, f"docker://{there}"))
                to = here.fresh("copy")
                others["pull"].append(timed(_skopeo, f"docker://{there}", f"oci:{to}:1"))
            with here.registry() as there:
                ours["push"].append(timed(_upload, made, there, blobs))
                ours["pull"].append(timed(_download, there, here.fresh("copy")))
        size = sum(blob.descriptor.size for blob in blobs) / MIB
        for way in ("push", "pull"):
            yield ratio(f"{way} of {size:.0f} MiB / skopeo", ours[way], others[way], MOST_COPY)


def _upload(made: Bundle, to: Reference, blobs: list[pack.Blob]) -> None:
    with Registry(to, push=True) as registry:
        config = oci.describe(bundle.DOCUMENT, made.document)
        registry.push(config, made.document)
        for blob in blobs:
            registry.push(blob.descriptor, blob.source)
        layers = tuple(blob.descriptor for blob in blobs)
        manifest = Manifest(oci.MICROVM, config, layers)
        registry.put(manifest.document(), oci.MANIFEST, manifest.descriptor().digest)
        index = Index((manifest.entry(made.arch),))
        registry.put(index.document(), oci.INDEX, to.version)


def _download(source: Reference, to: Path) -> None:
    with Registry(source) as registry:
        offer = pull.resolve(registry)
        for layer in offer.manifest.layers:
            registry.fetch(layer, to / str(layer.title))


def _skopeo(source: str, to: str) -> None:
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    run(
        ["skopeo", "copy", "--all", "--quiet", *plain, source, to],
        what="skopeo",
        timeout_s=COPY_TIMEOUT_S,
    )


def publish(runs: int) -> Iterator[Finding]:
    """All that a user waits for."""
    there, back = [], []
    with stand() as here:
        made = image(Store(here.fresh("store")), DISK, 1)
        for _ in range(runs):
            with here.registry() as to:
                there.append(timed(_publish, made, to, here.directory))
                back.append(timed(_pull, to, Store(here.fresh("store"))))
    yield Finding("publish, with compressing", median(there), "s")
    yield Finding("pull, into the store", median(back), "s")


def _publish(made: Bundle, to: Reference, scratch: Path) -> push.Published:
    with Registry(to, push=True) as registry:
        return push.publish(made, to, registry, scratch=scratch, verified=True)


def _pull(source: Reference, store: Store) -> None:
    with Registry(source) as registry:
        pull.obtain(pull.resolve(registry), registry, store)


def change(runs: int) -> Iterator[Finding]:
    """A page of debian-web is another."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        checkout = Checkout(Path(scratch))
        page = checkout.root / "images" / "debian-web" / "index.html"
        disks = []
        for text in ("", "<p>One more line.</p>\n"):
            page.write_text(page.read_text(encoding="utf-8") + text)
            checkout.doit("rootfs:debian-web")
            pipeline = checkout.pipeline()
            disks.append(pipeline.rootfs("debian-web")[0].file(ROOTFS_FILE))
        size = patch.diff(disks[0], disks[1], Path(scratch, "patch"))
        whole = pack.compress(disks[1], Path(scratch, "whole"))[2]
        note = f"{size / 1024:.0f} KiB of {whole / MIB:.1f} MiB"
        yield Finding("a line: delta / disk", 100 * size / whole, "%", MOST_CHANGE, note)


def memory(runs: int) -> Iterator[Finding]:
    """Each in a process of its own."""
    with stand() as here, here.registry() as to:
        _process(here, "make", "a", to)
        steps = (
            ("publish", "a", "publish"),
            ("pull", "b", "pull"),
            ("publish again", "a", "publish"),
            ("put into the cache", "a", "keep"),
            ("take from the cache", "c", "restore"),
            ("delta: publish", "a", "successor"),
            ("delta: pull", "b", "pull"),
        )
        for title, store, what in steps:
            took, peak = _process(here, what, store, to)
            yield Finding(title, peak / 1024, "MiB", MOST_MEMORY, f"{took:.0f} s")


def _process(here: Stand, what: str, store: str, to: Reference) -> tuple[float, int]:
    said = python(
        ROOT, STORE, "-m", "bench.publish", f"--one={what}", str(here.directory / store), str(to)
    )
    took, peak = json.loads(said.splitlines()[-1])
    return took, peak


def one(what: str, place: str, to: str) -> None:
    """Do one thing; print the seconds and the most memory, in KiB."""
    store, reference = Store(Path(place)), parse(to)
    took = timed(ONE[what], store, reference)
    print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))


def _make(store: Store, to: Reference) -> None:
    image(store, BIG, 1)
    image(store, BIG, 2)


def _first(store: Store, to: Reference) -> None:
    _publish(image(store, BIG, 1), to, store.root)


def _successor(store: Store, to: Reference) -> None:
    made = image(store, BIG, 2)
    done = _publish(made, to, store.root)
    (disk,) = (file for file in made.files if file.title == ROOTFS_FILE)
    rootfs = store.holding("rootfs", {ROOTFS_FILE: disk.digest})
    assert rootfs and done.previous
    with Registry(to, push=True) as registry:
        attached = predecessor.attach(
            done.previous, done.manifest, rootfs, registry, store, store.root
        )
    assert attached and attached.size * delta.WORTH < attached.whole


def _cached(store: Store, to: Reference) -> tuple[cache.Cache, Recipe]:
    recipe = Plan(spec.load(ROOT)).rootfs("debian-web")
    place = Reference(to.registry, "cache")
    return cache.Cache(place, write=True, downloads=store.root / "downloads"), recipe


def _keep(store: Store, to: Reference) -> None:
    into, recipe = _cached(store, to)
    image(store, BIG, 1)
    (artifact,) = (one for one in store.objects("rootfs") if one.facts == {"size": 1})
    into.keep(recipe, artifact, store.root)


def _restore(store: Store, to: Reference) -> None:
    of, recipe = _cached(store, to)

    def build(stage: Stage) -> None:
        assert of.restore(recipe, stage)

    store.obtain(recipe, build)


ONE: Mapping[str, Callable[[Store, Reference], None]] = {
    "make": _make,
    "publish": _first,
    "pull": lambda store, to: _pull(to, store),
    "successor": _successor,
    "keep": _keep,
    "restore": _restore,
}

SECTIONS: Mapping[str, Callable[[int], Iterator[Finding]]] = {
    "transfer": transfer,
    "publish": publish,
    "change": change,
    "memory": memory,
}


def main() -> int:
    """Measure and report. Returns the exit status."""
    if len(sys.argv) == 4 and sys.argv[1].startswith("--one="):
        one(sys.argv[1].removeprefix("--one="), *sys.argv[2:])
        return 0
    parser = arguments("bench.publish", SECTIONS)
    return report(parser, parser.parse_args(), SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
