"""A container image that only holds a disk, as KubeVirt's containerDisk has it.

    /disk/rootfs.img       the root filesystem, raw: one file, and QEMU's user's
    /boot/vmlinux          the kernel, for kernelBoot; Image on 64-bit ARM
    /boot/fcbuild.json     what the image is

It is an OCI image layout in a tar, which has docker's own list besides, so that `docker load` and
`skopeo copy oci-archive:` take it. A drive for what the guest writes is not in it: without one that
goes to RAM.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from fcbuild.publish import document, oci, tarball
from fcbuild.publish.bundle import Bundle
from fcbuild.publish.layout import LAYOUT, REF_NAME
from fcbuild.publish.tarball import Entry
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.series import DEBIAN_ARCH, KERNEL_FILE

# KubeVirt's user guide, "containerDisk".
_DISK, _QEMU = "disk/rootfs.img", 107

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def stream(bundle: Bundle) -> Iterator[bytes]:
    """Yield the archive. The layer's files are read twice, since its digest comes before it. Raises
    OSError."""
    layer = _measured(_layer(bundle))
    config_text = _json(
        {
            "architecture": DEBIAN_ARCH[bundle.arch],
            "os": "linux",
            "config": {"Labels": {oci.TITLE: bundle.image}},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }
    )
    config = oci.describe(_CONFIG, config_text)
    manifest_text = oci.Manifest(None, config, (layer,)).document()
    manifest = oci.describe(oci.MANIFEST, manifest_text, annotations={REF_NAME: "latest"})
    docker = {
        "Config": _blob(config),
        "RepoTags": [f"{bundle.image}-containerdisk:latest"],
        "Layers": [_blob(layer)],
    }
    return tarball.stream(
        (
            tarball.text("oci-layout", LAYOUT),
            tarball.text("index.json", oci.Index((manifest,)).document()),
            tarball.text("manifest.json", _json([docker])),
            tarball.directory("blobs"),
            tarball.directory("blobs/sha256"),
            tarball.text(_blob(config), config_text),
            tarball.text(_blob(manifest), manifest_text),
            Entry(_blob(layer), _layer(bundle), layer.size),
        )
    )


def _layer(bundle: Bundle) -> Iterator[bytes]:
    files = {file.title: file for file in bundle.files}
    kernel = KERNEL_FILE[bundle.arch]
    disk = tarball.file(_DISK, files[ROOTFS_FILE])
    return tarball.stream(
        (
            tarball.directory("boot"),
            *(tarball.file(f"boot/{name}", files[name]) for name in (kernel, document.NAME)),
            tarball.directory("disk")._replace(owner=_QEMU),
            disk._replace(mode=0o440, owner=_QEMU),
        )
    )


def _measured(pieces: Iterator[bytes]) -> oci.Descriptor:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return oci.Descriptor(_LAYER, f"sha256:{digest.hexdigest()}", size)


def _blob(descriptor: oci.Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
