"""Deltas: what a new version of an image differs from the one before, attached to its manifest.

A delta is an artifact whose subject is the new version's manifest: one patch (patch.py) that makes
the root filesystem of that one's. It holds nothing that the manifest's own layers do not; who has
the old version fetches it in place of a layer, and who has not loses nothing.
"""

from __future__ import annotations

from pathlib import Path

from fcbuild import progress
from fcbuild.errors import ArtifactError, RegistryError
from fcbuild.publish import oci, patch
from fcbuild.publish.oci import Descriptor, Manifest
from fcbuild.publish.reference import DIGEST
from fcbuild.publish.registry import PARTIAL, Registry
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.store import Store

DELTA = "application/vnd.fcbuild.disk.delta.v1"
PATCH = "application/vnd.fcbuild.disk.patch.v1"
BASE = "dev.fcbuild.delta.base"  # the plain digest of the file that a patch is against

WORTH = 2  # a patch is used when it is so many times smaller than the layer


def apply(
    subject: str, layer: Descriptor, to: Path, registry: Registry, store: Store, downloads: Path
) -> bool:
    """Make a file by a delta, where the store has what one is against; return whether it is made.

    subject: the manifest's digest. layer: what the file would be fetched as. What does not fit is
    said, and leaves nothing: the whole layer is there, too.
    """
    what = f"{registry.reference.name}@{subject}"
    digest, size = oci.plain(layer, what=what)
    try:
        for known in registry.referrers(subject, DELTA):
            base = known.annotations.get(BASE, "")
            if not DIGEST.fullmatch(base):
                continue
            old = store.holding("rootfs", {ROOTFS_FILE: base.partition(":")[2]})
            if old is None:
                continue
            layers = manifest(registry, known).layers
            if len(layers) != 1 or layers[0].size * WORTH > layer.size:
                continue
            piece = layers[0]
            downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = downloads / f"{piece.digest.partition(':')[2]}{PARTIAL}"
            with progress.step(
                f"{to.name}: fetching {-(-piece.size >> 10)} KiB that differ from {old.name}"
            ):
                registry.fetch(piece, partial)
                try:
                    patch.apply(
                        old.file(ROOTFS_FILE),
                        partial,
                        to,
                        digest=digest.partition(":")[2],
                        size=size,
                    )
                finally:
                    partial.unlink()
            return True
    except (ArtifactError, RegistryError) as error:
        progress.say(f"warning: no delta is used, all of {to.name} is fetched: {error}")
    return False


def manifest(registry: Registry, descriptor: Descriptor) -> Manifest:
    """Return the manifest of a descriptor. Raises RegistryError, ArtifactError."""
    found, content = registry.manifest(descriptor.digest)
    document = oci.read(content, found.media_type, what=f"{registry.reference.name}@{found.digest}")
    if not isinstance(document, Manifest):
        raise ArtifactError(f"{registry.reference.name}@{found.digest}: not a manifest")
    return document
