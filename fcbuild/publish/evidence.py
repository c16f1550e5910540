"""Evidence about a published image: what is said of it, and how it is attached and found again.

    manifest of an architecture
      <-- subject --  a manifest for each statement: its one layer is a signed envelope (dsse)
      <-- subject --  the bill of materials once more, as scanners want it: a plain document

Nothing of it depends on when or where it is attached. What comes back is a stranger's until a
verdict says otherwise (verdict.py).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from fcbuild.build import base
from fcbuild.errors import ArtifactError, EvidenceError, RegistryError
from fcbuild.fingerprint import Json, canonical
from fcbuild.look import inventory
from fcbuild.look.tree import Tree
from fcbuild.publish import (
    bootresult,
    dsse,
    keyless,
    oci,
    provenance,
    sbom,
    statement,
    subject,
    verdict,
)
from fcbuild.publish.key import PrivateKey
from fcbuild.publish.oci import Descriptor, Manifest
from fcbuild.publish.policy import KINDS, Rule
from fcbuild.publish.registry import Registry
from fcbuild.publish.statement import PREDICATES, Kind
from fcbuild.publish.subject import Subject
from fcbuild.publish.verdict import Piece, Published
from fcbuild.recipes import Recipe
from fcbuild.store import Store

PREDICATE_TYPE = "in-toto.io/predicate-type"  # the annotation that others write as well
_GONE = 404  # a registry's answer for what it has not
_PROGRAM = "/.fcbuild/init"  # PID 1: guest/BOOT_CONTRACT.md, section 1
# What is looked at; whoever may write to the repository may attach any number.
MAX_PIECES = 100
MAX_BYTES = 64 << 20  # of all of them

Predicates = Mapping[Kind, Json]


def predicates(
    about: Subject,
    *,
    rootfs: Recipe,
    kernel: Recipe,
    tree: Tree,
    receipt: bytes | None,
    store: Store,
) -> Predicates:
    """Return what is to be said of an image that is built. rootfs, kernel: its recipes; tree: what
    is in its root filesystem; receipt: None where no boot is to be spoken of.

    Raises EvidenceError, ImageError.
    """
    known = subject.kernel(about)
    program = tree.content(_PROGRAM)
    if program is None:
        raise EvidenceError(f"{about.image}: its root filesystem has no {_PROGRAM}")
    epoch = cast(int, rootfs.inputs["epoch"])
    found: dict[Kind, Json] = {
        "sbom": sbom.document(
            about,
            known,
            inventory.take(tree),
            init=hashlib.sha256(program).hexdigest(),
            epoch=epoch,
        ),
        "provenance": provenance.predicate(
            about, rootfs, kernel, known, _moved(store, rootfs, kernel)
        ),
    }
    if receipt is not None:
        found["boot"] = bootresult.predicate(receipt, about)
    return found


def attach(
    registry: Registry, to: Descriptor, about: Subject, said: Predicates, key: PrivateKey
) -> list[Kind]:
    """Attach signed statements to a manifest that is published; return of which kinds.

    to: the manifest. What the key's owner has said of it before is not said again: a boot takes
    another time on each day, and lists would grow. Raises RegistryError, EvidenceError.
    """
    artifact = Published(to.digest.partition(":")[2], about.files)
    rule = Rule("", about.image, (about.image,), {"": key.public}, KINDS)
    rows = verdict.judge(artifact, pieces(registry, to.digest), rule)
    known = {row.what for row in rows if row.outcome == "ok"}
    new = [kind for kind in KINDS if kind in said and kind not in known]
    for kind in new:
        text = statement.document(about.image, artifact.sha256, kind, said[kind])
        envelope = dsse.sign(text, key)
        _attach(registry, to, dsse.MEDIA_TYPE, envelope, f"{kind}.dsse.json", PREDICATES[kind])
    if "sbom" in new:
        _attach(registry, to, sbom.MEDIA_TYPE, canonical(said["sbom"]), "sbom.cdx.json")
    return new


def attach_bundle(registry: Registry, to: Descriptor, bundle: bytes) -> Descriptor:
    """Attach a Sigstore bundle that another tool made. Raises RegistryError."""
    return _attach(registry, to, keyless.MEDIA_TYPE, bundle, "bundle.sigstore.json")


def pieces(registry: Registry, digest: str) -> Iterator[Piece]:
    """Yield what is attached to a manifest and could be evidence; digest: the manifest's.

    By the layers' media types: what lists say of their entries is not always so. What is listed but
    gone, or damaged, is left out: a verdict misses what it lacks. Raises RegistryError,
    EvidenceError for more than anybody looks at.
    """
    listed = registry.referrers(digest)
    if len(listed) > MAX_PIECES:
        raise _too_much(registry, digest, f"{len(listed)} things are attached to")
    left = MAX_BYTES
    for entry in listed:
        for layer in _layers(registry, entry):
            if layer.media_type not in {dsse.MEDIA_TYPE, keyless.MEDIA_TYPE}:
                continue
            if (left := left - layer.size) < 0:
                raise _too_much(registry, digest, f"more than {MAX_BYTES >> 20} MiB are with")
            if (content := _content(registry, layer)) is not None:
                yield Piece(layer.media_type, content)


def _attach(
    registry: Registry,
    to: Descriptor,
    media_type: str,
    content: bytes,
    title: str,
    predicate_type: str = "",
) -> Descriptor:
    config, nothing = oci.empty()
    layer = oci.describe(media_type, content, annotations={oci.TITLE: title})
    registry.push(config, nothing)
    registry.push(layer, content)
    bare = Descriptor(to.media_type, to.digest, to.size)
    annotations = {PREDICATE_TYPE: predicate_type} if predicate_type else {}
    return registry.attach(Manifest(media_type, config, (layer,), annotations, bare))


def _layers(registry: Registry, entry: Descriptor) -> tuple[Descriptor, ...]:
    """Return the layers of what is attached; none of what is no manifest, or gone."""
    try:
        found = registry.find(entry.digest)
        if found is None:
            return ()
        descriptor, content = found
        what = f"{registry.reference.name}@{entry.digest}"
        document = oci.read(content, descriptor.media_type, what=what)
    except ArtifactError:
        return ()
    return document.layers if isinstance(document, Manifest) else ()


def _content(registry: Registry, layer: Descriptor) -> bytes | None:
    """Return a piece's bytes, or None where they are gone or others."""
    with tempfile.TemporaryDirectory(prefix="fcbuild-evidence-") as directory:
        file = Path(directory) / "piece"
        try:
            registry.fetch(layer, file)
        except ArtifactError:
            return None
        except RegistryError as error:
            if error.status == _GONE:
                return None
            raise
        return file.read_bytes()


def _too_much(registry: Registry, digest: str, what: str) -> EvidenceError:
    return EvidenceError(
        f"{registry.reference.name}: {what} {digest}",
        hint=f"remove what is no evidence: at most {MAX_PIECES} attachments are looked at, "
        f"{MAX_BYTES >> 20} MiB of evidence",
    )


def _moved(store: Store, *recipes: Recipe) -> provenance.Moved:
    """Return of which bases it is known that they were not made of what is locked."""
    found: dict[str, Json] = {}
    for recipe in provenance.all_of(*recipes):
        made = store.find(recipe) if recipe.kind == "base" else None
        if made and (moved := made.facts.get(base.MOVED)):
            found[recipe.fingerprint] = moved
    return found
