"""Attach to a new version of an image what it differs from its predecessor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from fcbuild import fingerprint, progress
from fcbuild.publish import delta, oci, patch, pull
from fcbuild.publish.oci import Descriptor, Manifest
from fcbuild.publish.registry import Registry
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.store import Artifact, Store


class Delta(NamedTuple):
    """A patch that was attached. base: the plain digest of what it is against. size: in bytes;
    whole: of the layer that it stands in for."""

    base: str
    size: int
    whole: int


def attach(
    previous: Descriptor,
    new: Descriptor,
    rootfs: Artifact,
    registry: Registry,
    store: Store,
    scratch: Path,
) -> Delta | None:
    """Attach to a published manifest what its root filesystem differs from the previous one's.

    What the store lacks of the previous version is fetched. Returns None where there is nothing to
    gain. Raises RegistryError, ArtifactError, StoreError.
    """
    reference = registry.reference.pinned(previous.digest)
    with Registry(reference) as reading:
        offer = pull.resolve(reading)
        whole = delta.manifest(registry, new).layer(ROOTFS_FILE)
        digest = f"sha256:{offer.document.rootfs.files[ROOTFS_FILE].digest}"
        if whole is None or digest == oci.plain(whole, what=str(reference))[0]:
            return None
        for known in registry.referrers(new.digest, delta.DELTA):
            if known.annotations.get(delta.BASE) == digest:
                return None
        base = pull.rootfs(offer, reading, store)
    with tempfile.TemporaryDirectory(prefix="delta-", dir=scratch) as own:
        made = Path(own, "patch")
        with progress.step(f"{ROOTFS_FILE}: comparing with {previous.digest[:19]}"):
            size = patch.diff(base.file(ROOTFS_FILE), rootfs.file(ROOTFS_FILE), made)
        if size * delta.WORTH > whole.size:
            return None
        layer = _describe(made, size, whole)
        registry.push(layer, made)
        config, content = oci.empty()
        registry.push(config, content)
    registry.attach(Manifest(delta.DELTA, config, (layer,), {delta.BASE: digest}, new))
    return Delta(digest, size, whole.size)


def _describe(made: Path, size: int, whole: Descriptor) -> Descriptor:
    kept = {key: whole.annotations[key] for key in (oci.PLAIN_DIGEST, oci.PLAIN_SIZE)}
    annotations = {oci.TITLE: f"{ROOTFS_FILE}.patch", **kept}
    return Descriptor(delta.PATCH, f"sha256:{fingerprint.digest(made)}", size, annotations)
