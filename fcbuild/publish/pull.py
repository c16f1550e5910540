"""Take an image from a registry: no engine, no build, no Dockerfile.

What the store holds already is not fetched, whoever made it. What is fetched becomes an object
under the fingerprint of its bytes: what a registry says of its origin is for people to read, and
never stands in for something that is built here.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fcbuild import progress, recipes
from fcbuild.errors import ArtifactError
from fcbuild.fingerprint import SHORT, Json
from fcbuild.publish import bundle, delta, document, oci, pack
from fcbuild.publish.document import Document, Part
from fcbuild.publish.oci import Descriptor, Index, Manifest
from fcbuild.publish.reference import Reference
from fcbuild.publish.registry import PARTIAL, Registry
from fcbuild.recipes import ROOTFS_FILE, Kind
from fcbuild.series import ARCHITECTURES, DEBIAN_ARCH
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact, Stage, Store

_NEWER = oci.MICROVM.removesuffix("1")


class Offer(NamedTuple):
    """An image that a registry has, for one architecture. reference: with its digest. digest: the
    manifest's. verified: whether it was published with a receipt."""

    reference: Reference
    manifest: Manifest
    document: Document
    verified: bool

    @property
    def spec(self) -> ImageSpec:
        return self.document.spec

    @property
    def digest(self) -> str:
        return self.manifest.descriptor().digest


def resolve(registry: Registry) -> Offer:
    """Return what a registry has under its reference, for this machine or, where there is nothing
    for that, for another that can be emulated.

    Raises RegistryError, and ArtifactError for what is not an image of ours, or not for here.
    """
    reference = registry.reference
    descriptor, content = registry.manifest(reference.version)
    found = oci.read(content, descriptor.media_type, what=str(reference))
    if isinstance(found, Index):
        entry = _choose(found, reference)
        descriptor, content = registry.manifest(entry.digest)
        found = oci.read(content, descriptor.media_type, what=str(reference))
    if isinstance(found, Index):
        raise ArtifactError(f"{reference}: an index in an index")
    _insist(found, reference)
    described = document.read(registry.read(found.config, most=document.MAX_BYTES))
    pinned = reference.pinned(descriptor.digest)
    _compare(found, described, pinned)
    return Offer(pinned, found, described, oci.UNVERIFIED not in found.annotations)


def obtain(offer: Offer, registry: Registry, store: Store) -> tuple[Artifact, Artifact]:
    """Return kernel and root filesystem of an image as objects of the store, held and verified,
    fetching what it lacks. Raises RegistryError, ArtifactError, StoreError."""
    return (
        _part("kernel", offer.document.kernel, None, offer, registry, store),
        rootfs(offer, registry, store),
    )


def rootfs(offer: Offer, registry: Registry, store: Store) -> Artifact:
    """Return the root filesystem of an image, as `obtain` does."""
    part = offer.document.rootfs
    return _part("rootfs", part, part.facts, offer, registry, store)


def fetch(layer: Descriptor, to: Path, registry: Registry, downloads: Path) -> None:
    """Fetch one file. downloads: where its compressed form is until it is whole, so that the next
    run can go on. Raises RegistryError, ArtifactError."""
    digest, size = oci.plain(layer, what=str(registry.reference))
    downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = downloads / f"{layer.digest.partition(':')[2]}{PARTIAL}"
    with progress.transfer(f"{to.name}: fetching", layer.size):
        registry.fetch(layer, partial)
    if layer.media_type.endswith(pack.ZSTD):
        pack.expand(partial, to, digest=digest.partition(":")[2], size=size)
    else:
        shutil.copyfile(partial, to)
    partial.unlink()


def _part(
    kind: Kind,
    part: Part,
    facts: Mapping[str, Json] | None,
    offer: Offer,
    registry: Registry,
    store: Store,
) -> Artifact:
    digests = {name: content.digest for name, content in part.files.items()}
    if found := store.holding(kind, digests, facts):
        progress.say(f"{kind}: {found.name} {found.fingerprint[:SHORT]} is in the store")
        return found
    recipe = recipes.taken(kind, part.name, offer.spec.arch, digests, part.facts)

    def build(stage: Stage) -> None:
        stage.log.write(f"fetched from {offer.reference}\n".encode())
        for name in part.files:
            layer = offer.manifest.layer(name)
            assert layer is not None  # _compare has seen it
            to, downloads = stage.file(name), store.root / "downloads"
            if name != ROOTFS_FILE or not delta.apply(
                offer.digest, layer, to, registry, store, downloads
            ):
                fetch(layer, to, registry, downloads)
        stage.facts.update(part.facts)

    return store.obtain(recipe, build, verify=True)[0]


def _choose(index: Index, reference: Reference) -> Descriptor:
    own = platform.machine()
    for arch in (own, *ARCHITECTURES):
        if arch in ARCHITECTURES and (entry := index.entry(arch)):
            return entry
    offered = ", ".join(entry.architecture or "?" for entry in index.manifests) or "nothing"
    raise ArtifactError(
        f"{reference} is for {offered}, not for {DEBIAN_ARCH.get(own, own)}",
        hint="publish the image for this architecture under the same tag",
    )


def _insist(manifest: Manifest, reference: Reference) -> None:
    kind = manifest.artifact_type or manifest.config.media_type
    if kind == oci.MICROVM:
        return
    if manifest.config.media_type in oci.CONTAINER_CONFIGS:
        raise ArtifactError(
            f"{reference} is a container image, not a microVM artifact",
            hint=f"build it with images/NAME/Dockerfile: FROM {reference}",
        )
    if kind.startswith(_NEWER):
        raise ArtifactError(
            f"{reference} is of a newer form ({kind}) than this fcbuild knows",
            hint="use a newer fcbuild",
        )
    raise ArtifactError(f"{reference} is an artifact of another kind: {kind[:100]}")


def _compare(manifest: Manifest, described: Document, reference: Reference) -> None:
    """Raise ArtifactError unless manifest and document are about the same files."""
    if manifest.config.media_type != bundle.DOCUMENT:
        raise ArtifactError(f"{reference}: its config is not {bundle.DOCUMENT}")
    layers = oci.titles(manifest, what=str(reference))
    for part in (described.kernel, described.rootfs):
        for name, content in part.files.items():
            layer = layers.get(name)
            said = layer and oci.plain(layer, what=str(reference))
            if said != (f"sha256:{content.digest}", content.size):
                raise ArtifactError(
                    f"{reference}: its manifest and its document differ about {name}",
                    hint="publish the image again",
                )
