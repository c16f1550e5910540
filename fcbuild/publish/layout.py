"""What publishing pushes, as an OCI image layout: a directory that skopeo and oras copy from.

Source of names: the OCI image specification, 1.1 (image-layout.md, annotations.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fcbuild.publish import bundle as bundles
from fcbuild.publish import oci, pack
from fcbuild.publish.bundle import Bundle
from fcbuild.publish.oci import Index, Manifest
from fcbuild.publish.pack import Blob

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"


def write(bundle: Bundle, to: Path) -> None:
    """Write an image's layout into a new directory. Raises OSError, InputChanged."""
    (to / "blobs/sha256").mkdir(parents=True)
    layers = [pack.pack(file, to) for file in bundle.files]
    config = oci.describe(bundles.DOCUMENT, bundle.document)
    made = Manifest(oci.MICROVM, config, tuple(layer.descriptor for layer in layers))
    index = Index((made.entry(bundle.arch),)).document()
    named = oci.describe(oci.INDEX, index, annotations={REF_NAME: "latest"})
    _put(to, layers)
    _put(to, [Blob(config, bundle.document), Blob(made.descriptor(), made.document())])
    _put(to, [Blob(named, index)])
    (to / "oci-layout").write_bytes(LAYOUT)
    (to / "index.json").write_bytes(Index((named,)).document())


def _put(to: Path, blobs: Iterable[Blob]) -> None:
    for blob in blobs:
        path = to / "blobs/sha256" / blob.descriptor.digest.removeprefix("sha256:")
        if isinstance(blob.source, bytes):
            path.write_bytes(blob.source)
        else:
            blob.source.rename(path)
