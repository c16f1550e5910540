"""Publish an image: its files as one artifact for its architecture, under an index for all of them.

    REPOSITORY:TAG                index, one manifest for each architecture
    REPOSITORY:fp-FINGERPRINT     the manifest; this tag is never moved

A fingerprint's manifest that is there is taken as it is: its bytes need not be compressed again,
and publishing twice gives the same digest even where another libzstd would give another.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fcbuild import progress
from fcbuild.errors import ArtifactError, PublishRefused, RegistryError, SpecError
from fcbuild.publish import bundle, oci, pack
from fcbuild.publish.bundle import Bundle, File
from fcbuild.publish.oci import Descriptor, Index, Manifest
from fcbuild.publish.reference import LATEST, Reference
from fcbuild.publish.registry import Registry

FINGERPRINT = "fp-"  # how tags begin that are never moved
_DIGITS = 32
_ATTEMPTS = 5  # at a tag that others may move, too
_UNVERIFIED_TAG = "-unverified"


class Layer(NamedTuple):
    """One file that was published. pushed: whether the registry lacked its blob."""

    descriptor: Descriptor
    pushed: bool


class Published(NamedTuple):
    """What a registry has now. reference: with the tag that was asked for, whose index has this
    digest.

    fingerprint: the tag that stays. previous: the manifest of this architecture that the tag led to
    before, where that is another.
    """

    reference: Reference
    digest: str
    manifest: Descriptor
    fingerprint: str
    layers: tuple[Layer, ...]
    previous: Descriptor | None


def target(reference: Reference) -> Reference:
    """Return where to publish to. Raises SpecError for a reference that names no such place."""
    if reference.digest:
        raise SpecError(
            [f"to={reference}: a digest follows from what is published"], hint="give a tag"
        )
    found = reference.tagged(reference.tag or LATEST)
    if found.version.startswith(FINGERPRINT):
        raise SpecError(
            [f"to={reference}: tags that begin with {FINGERPRINT} are never moved"],
            hint="that tag is made by itself; give another one",
        )
    return found


def publish(
    image: Bundle, to: Reference, registry: Registry, *, scratch: Path, verified: bool
) -> Published:
    """Push an image. to: of `target`. scratch: where compressed files are, until they are pushed.

    Raises RegistryError, PublishRefused for what a tag holds that is not to be replaced. The tags
    come last, so what is cut off is not seen by anybody.
    """
    fixed = fingerprint_tag(image, verified=verified)
    index = _existing(registry, to)
    found = _published(registry, fixed, image, verified=verified)
    layers: tuple[Layer, ...] = ()
    if found is None:
        manifest, layers = _push(image, registry, scratch, verified=verified)
        registry.put(manifest.document(), oci.MANIFEST, manifest.descriptor().digest)
        registry.put(manifest.document(), oci.MANIFEST, fixed)
    else:
        manifest = found
        layers = tuple(Layer(layer, pushed=False) for layer in manifest.layers)
    entry = manifest.entry(image.arch)
    before = index.entry(image.arch)
    index = _lead(registry, to, index, image.arch, entry)
    return Published(
        to,
        oci.sha256(index.document()),
        manifest.descriptor(),
        fixed,
        layers,
        None if before is None or before.digest == entry.digest else before,
    )


def fingerprint_tag(image: Bundle, *, verified: bool) -> str:
    """Return the tag that stands for an image's inputs, which its document names, and its bytes."""
    files = "".join(f"{file.title} {file.media_type} {file.digest}\n" for file in image.files)
    digits = hashlib.sha256(files.encode()).hexdigest()[:_DIGITS]
    return f"{FINGERPRINT}{digits}{'' if verified else _UNVERIFIED_TAG}"


def upload(files: Iterable[File], registry: Registry, scratch: Path) -> tuple[Layer, ...]:
    """Push files as blobs, one after the other. Raises RegistryError, InputChanged."""
    layers = []
    for file in files:
        with tempfile.TemporaryDirectory(prefix="pack-", dir=scratch) as own:
            with progress.transfer(f"{file.title}: compressing", file.size):
                blob = pack.pack(file, Path(own))
            with progress.transfer(f"{file.title}: pushing", blob.descriptor.size):
                pushed = registry.push(blob.descriptor, blob.source)
        layers.append(Layer(blob.descriptor, pushed))
    return tuple(layers)


def _push(
    image: Bundle, registry: Registry, scratch: Path, *, verified: bool
) -> tuple[Manifest, tuple[Layer, ...]]:
    config = oci.describe(bundle.DOCUMENT, image.document)
    registry.push(config, image.document)
    layers = upload(image.files, registry, scratch)
    manifest = Manifest(
        oci.MICROVM,
        config,
        tuple(layer.descriptor for layer in layers),
        {} if verified else {oci.UNVERIFIED: "true"},
    )
    return manifest, layers


def _existing(registry: Registry, to: Reference) -> Index:
    """Return the index under a tag, empty where there is none. Raises PublishRefused for a tag that
    leads to something else than what this program publishes."""
    found = registry.find(to.version)
    if found is None:
        return Index(())
    document = oci.read(found[1], found[0].media_type, what=str(to))
    if isinstance(document, Index):
        for entry in document.manifests:
            _insist(_read(registry, entry.digest, to), to)
        return document
    _insist(document, to)
    return Index(())


def _lead(registry: Registry, to: Reference, index: Index, arch: str, entry: Descriptor) -> Index:
    """Have a tag's index lead to a manifest; return it. index: what it was a moment ago. Another
    architecture may be published at the same time, so it is looked at once more."""
    for _ in range(_ATTEMPTS):
        if index.entry(arch) == entry:
            return index
        registry.put(index.with_entry(entry).document(), oci.INDEX, to.version)
        index = _existing(registry, to)
    raise RegistryError(f"{to}: others move it all the time", hint="try again")


def _insist(document: Manifest | Index, to: Reference) -> None:
    if isinstance(document, Index) or document.artifact_type != oci.MICROVM:
        raise PublishRefused(
            f"{to} leads to something else than a microVM: it would be lost",
            hint="publish under another tag, or remove that one there",
        )


def _published(registry: Registry, tag: str, image: Bundle, *, verified: bool) -> Manifest | None:
    """Return the manifest under an image's own tag. Raises PublishRefused for another image's."""
    found = registry.find(tag)
    if found is None:
        return None
    document = oci.read(found[1], found[0].media_type, what=f"{registry.reference.name}:{tag}")
    wanted = {file.title: f"sha256:{file.digest}" for file in image.files}
    mark = {} if verified else {oci.UNVERIFIED: "true"}
    if (
        isinstance(document, Manifest)
        and document.artifact_type == oci.MICROVM
        and document.config.digest == oci.sha256(image.document)
        and _holds(document) == wanted
        and document.annotations == mark
        and found[1] == document.document()
    ):
        return document
    raise PublishRefused(
        f"{registry.reference.name}:{tag} exists, is immutable, and is not this image",
        hint="somebody else has moved it: remove it there, and find out who",
    )


def _holds(manifest: Manifest) -> dict[str, str] | None:
    what = "the published manifest"
    try:
        titles = oci.titles(manifest, what=what)
        return {title: oci.plain(layer, what=what)[0] for title, layer in titles.items()}
    except ArtifactError:
        return None


def _read(registry: Registry, version: str, to: Reference) -> Manifest | Index:
    descriptor, content = registry.manifest(version)
    return oci.read(content, descriptor.media_type, what=str(to))
