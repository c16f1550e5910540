"""A root filesystem's tar as an image that a container engine loads.

The form is that of `docker save`: a tar of layers, the image's config, and a manifest that names
both (https://github.com/moby/moby/blob/v25.0.0/image/spec/v1.2.md, "Combined Image JSON +
Filesystem Changeset Format"). An import of the tar alone would do, but older engines do not let it
say for which architecture the image is.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fcbuild.context import EPOCH
from fcbuild.fingerprint import Json

_CHUNK = 1 << 20


def write(
    tar: Path, sha256: str, tag: str, *, arch: str, config: Mapping[str, Json]
) -> Iterator[bytes]:
    """Yield the archive of an image of one layer. sha256: of the tar. arch: as the engine calls it.
    config: how the image wants to run, in the engine's terms."""
    created = datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {
        "architecture": arch,
        "os": "linux",
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256}"]},
        "history": [{"created": created, "created_by": "fcbuild"}],
    }
    text = json.dumps(about, sort_keys=True).encode()
    described, layer = f"{hashlib.sha256(text).hexdigest()}.json", f"{sha256}/layer.tar"
    manifest = [{"Config": described, "RepoTags": [tag], "Layers": [layer]}]
    yield _header(layer, tar.stat().st_size)
    with tar.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
    yield _padding(tar.stat().st_size)
    for name, content in ((described, text), ("manifest.json", json.dumps(manifest).encode())):
        yield _header(name, len(content)) + content + _padding(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mtime = EPOCH
    return entry.tobuf()


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
