"""The documents of OCI artifacts: manifests, indexes and descriptors. Pure.

Source of names and rules: the OCI image specification, 1.1 (manifest.md, image-index.md,
descriptor.md). What we write has one text for one content, so that publishing twice gives the same
digest; what we read is a stranger's, and is read strictly.

    index, one for all architectures
      manifest of an architecture     artifactType MICROVM
        config                        fcbuild.json
        layers                        kernel, disk, vm.json, boot.sh: each with its title
      (referrers)                     manifests whose `subject` is another one: delta, evidence
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fcbuild.errors import ArtifactError
from fcbuild.publish.reference import DIGEST
from fcbuild.series import DEBIAN_ARCH

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
# Of container images, which are not what we publish.
CONTAINER_CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

MICROVM = "application/vnd.fcbuild.microvm.v1"

TITLE = "org.opencontainers.image.title"
# Of what a layer holds, before it was compressed: sha256:HEX and bytes.
PLAIN_DIGEST, PLAIN_SIZE = "dev.fcbuild.digest", "dev.fcbuild.size"
UNVERIFIED = "dev.fcbuild.unverified"  # "true": published without a boot that proves it

MAX_BYTES = 4 << 20  # of a manifest: what registries and clients have to take
MAX_LAYERS = 1000

_TITLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_EMPTY_BYTES = b"{}"
# The platform of an index's entries, as container engines write it: GOARCH.
_GOARCH = DEBIAN_ARCH
_NONE: Mapping[str, str] = MappingProxyType({})


class Descriptor(NamedTuple):
    """Points to a blob or a manifest. size: in bytes. architecture: of an index's entry, as the
    specification names it (amd64, arm64)."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = _NONE
    artifact_type: str | None = None
    architecture: str | None = None

    @property
    def title(self) -> str | None:
        return self.annotations.get(TITLE)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.architecture:
            found["platform"] = {"architecture": self.architecture, "os": "linux"}
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


class Manifest(NamedTuple):
    """One artifact. config: its document. subject: what it says something about."""

    artifact_type: str | None
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NONE
    subject: Descriptor | None = None

    def layer(self, title: str) -> Descriptor | None:
        """Return the layer of this title."""
        return next((layer for layer in self.layers if layer.title == title), None)

    def document(self) -> bytes:
        """Return the manifest's one text."""
        return _text(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": self.artifact_type,
                "config": self.config.document(),
                "layers": [layer.document() for layer in self.layers],
                "subject": self.subject and self.subject.document(),
                "annotations": dict(self.annotations),
            }
        )

    def descriptor(self) -> Descriptor:
        """Return what a list of referrers says of this manifest: its type and annotations too."""
        return describe(
            MANIFEST,
            self.document(),
            annotations=self.annotations,
            artifact_type=self.artifact_type,
        )

    def entry(self, arch: str) -> Descriptor:
        """Return what an index says of this manifest. arch: as image.toml names it.

        No more than tools know that are older than artifacts: they write what they copy anew, and
        what is not lost on the way keeps its digest.
        """
        return describe(MANIFEST, self.document())._replace(architecture=_GOARCH[arch])


class Index(NamedTuple):
    """A list of manifests: one for each architecture, or the referrers of one."""

    manifests: tuple[Descriptor, ...]

    def document(self) -> bytes:
        """Return the index's one text."""
        return _text(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [entry.document() for entry in self.manifests],
            }
        )

    def entry(self, arch: str) -> Descriptor | None:
        """Return the entry of an architecture, as image.toml names it (x86_64, aarch64)."""
        wanted = _GOARCH[arch]
        return next((entry for entry in self.manifests if entry.architecture == wanted), None)

    def with_entry(self, entry: Descriptor) -> Index:
        """Return the index with an entry in place of that of the same architecture."""
        others = [one for one in self.manifests if one.architecture != entry.architecture]
        ordered = sorted([*others, entry], key=lambda one: (one.architecture or "", one.digest))
        return self._replace(manifests=tuple(ordered))


def describe(
    media_type: str,
    content: bytes,
    *,
    annotations: Mapping[str, str] = _NONE,
    artifact_type: str | None = None,
) -> Descriptor:
    """Return the descriptor of a document."""
    return Descriptor(media_type, sha256(content), len(content), dict(annotations), artifact_type)


def empty() -> tuple[Descriptor, bytes]:
    """Return the config of an artifact that has none, and its content."""
    return describe(EMPTY, _EMPTY_BYTES), _EMPTY_BYTES


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read(content: bytes, media_type: str, *, what: str) -> Manifest | Index:
    """Read what a registry says is a manifest or an index. what: how messages call it.

    Raises ArtifactError for what is neither, or is not as the specification has it.
    """
    document = _mapping(parse(content, what=what), what, "it")
    kind = str(document.get("mediaType") or media_type.partition(";")[0].strip())
    if document.get("schemaVersion") != 2:
        raise ArtifactError(f"{what}: schemaVersion {document.get('schemaVersion')!r} is not 2")
    if kind in {INDEX, DOCKER_INDEX}:
        entries = _list(document.get("manifests"), what, "manifests")
        return Index(tuple(_descriptor(entry, what, "manifests") for entry in entries))
    if kind in {MANIFEST, DOCKER_MANIFEST}:
        layers = _list(document.get("layers"), what, "layers")
        subject = document.get("subject")
        return Manifest(
            _optional(document.get("artifactType"), what, "artifactType"),
            _descriptor(document.get("config"), what, "config"),
            tuple(_descriptor(layer, what, "layers") for layer in layers),
            _annotations(document.get("annotations"), what),
            None if subject is None else _descriptor(subject, what, "subject"),
        )
    raise ArtifactError(f"{what}: {kind[:100]!r} is neither an OCI manifest nor an index")


def plain(layer: Descriptor, *, what: str) -> tuple[str, int]:
    """Return digest and size of what a layer holds when it is not compressed. Raises
    ArtifactError."""
    if not layer.media_type.endswith("+zstd"):
        return layer.digest, layer.size
    digest, size = layer.annotations.get(PLAIN_DIGEST, ""), layer.annotations.get(PLAIN_SIZE, "")
    if not DIGEST.fullmatch(digest) or not re.fullmatch(r"0|[1-9][0-9]{0,14}", size):
        raise ArtifactError(f"{what}: {layer.title}: does not say what it holds")
    return digest, int(size)


def titles(manifest: Manifest, *, what: str) -> dict[str, Descriptor]:
    """Return the layers by title: names of files, each once. Raises ArtifactError."""
    found: dict[str, Descriptor] = {}
    for layer in manifest.layers:
        title = layer.title or ""
        if not _TITLE.fullmatch(title) or title in found:
            raise ArtifactError(f"{what}: a layer's title {title[:100]!r} cannot be a file's name")
        found[title] = layer
    return found


def parse(content: bytes, *, what: str) -> Any:
    """Return the value of a JSON text from outside. Raises ArtifactError."""
    if len(content) > MAX_BYTES:
        raise ArtifactError(f"{what}: larger than {MAX_BYTES >> 20} MiB")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{what}: not JSON: {error}") from error


def _text(document: Mapping[str, Any]) -> bytes:
    kept = {key: value for key, value in document.items() if value not in (None, {})}
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _descriptor(value: Any, what: str, where: str) -> Descriptor:
    found = _mapping(value, what, where)
    media_type, digest, size = found.get("mediaType"), found.get("digest"), found.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str) or type(size) is not int:
        raise ArtifactError(f"{what}: {where}: not a descriptor")
    if not DIGEST.fullmatch(digest) or size < 0:
        raise ArtifactError(f"{what}: {where}: digest {digest[:100]!r}, size {size}")
    platform = found.get("platform")
    architecture = platform.get("architecture") if isinstance(platform, dict) else None
    return Descriptor(
        media_type,
        digest,
        size,
        _annotations(found.get("annotations"), what),
        _optional(found.get("artifactType"), what, "artifactType"),
        _optional(architecture, what, "architecture"),
    )


def _annotations(value: Any, what: str) -> Mapping[str, str]:
    found = {} if value is None else _mapping(value, what, "annotations")
    if not all(isinstance(text, str) for text in found.values()):
        raise ArtifactError(f"{what}: annotations: not all are strings")
    return found


def _mapping(value: Any, what: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"{what}: {where}: not an object")
    return value


def _list(value: Any, what: str, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_LAYERS:
        raise ArtifactError(f"{what}: {where}: not a list of at most {MAX_LAYERS}")
    return value


def _optional(value: Any, what: str, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ArtifactError(f"{what}: {where}: not a string")
    return value or None
