"""Looking at an image in a registry before it is trusted: what `doit verify-artifact` tells."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from fcbuild.errors import ArtifactError, NotTrusted
from fcbuild.look.text import amount, plural
from fcbuild.publish import evidence, oci, pack, pull, verdict
from fcbuild.publish.oci import Index
from fcbuild.publish.policy import Policy
from fcbuild.publish.pull import Offer
from fcbuild.publish.registry import Registry
from fcbuild.publish.verdict import Published, Row


def offers(registry: Registry) -> list[Offer]:
    """Return what a registry has under its reference: an image for each architecture.

    Raises RegistryError, ArtifactError.
    """
    reference = registry.reference
    descriptor, content = registry.manifest(reference.version)
    found = oci.read(content, descriptor.media_type, what=str(reference))
    if not isinstance(found, Index):
        return [pull.resolve(registry)]
    listed = []
    for entry in found.manifests:
        with Registry(reference.pinned(entry.digest)) as one:
            listed.append(pull.resolve(one))
    if not listed:
        raise ArtifactError(f"{reference}: an index of nothing")
    return listed


def judge(offer: Offer, registry: Registry, policy: Policy) -> list[Row]:
    """Return what holds of what a policy asks for: the evidence is read, the image is not.

    Raises RegistryError, EvidenceError, ArtifactError.
    """
    rule = policy.rule(offer.reference)
    if rule is None:
        return [Row("policy", "failed", f"it says nothing of {offer.reference.name}")]
    return verdict.judge(_published(offer), evidence.pieces(registry, offer.digest), rule)


def insist(offer: Offer, registry: Registry, policy: Policy) -> None:
    """Raise NotTrusted, with what is missing, unless an image passes a policy."""
    rows = judge(offer, registry, policy)
    if wrong := [row for row in rows if row.outcome == "failed"]:
        raise NotTrusted(
            "\n".join(
                [
                    f"{offer.reference} is not trusted:",
                    *(f"  {row.what}: {row.detail}" for row in wrong),
                ]
            ),
            hint=f"doit verify-artifact from={offer.reference} shows all that is attached",
        )


def digests(offer: Offer, registry: Registry, scratch: Path) -> Row:
    """Fetch every file of an image and compare it with its digests; nothing of it stays.

    scratch: a directory with room for the largest. Raises RegistryError.
    """
    layers = offer.manifest.layers
    for layer in layers:
        try:
            if not layer.media_type.endswith(pack.ZSTD):
                registry.read(layer)
                continue
            with tempfile.TemporaryDirectory(prefix="verify-", dir=scratch) as own:
                pull.fetch(layer, Path(own) / (layer.title or "file"), registry, Path(own))
        except ArtifactError as error:
            return Row("digests", "failed", error.message)
    read = f"{plural(len(layers), 'file')}, {amount(sum(layer.size for layer in layers))}"
    return Row("digests", "ok", f"{read}, as the manifest says")


def show(found: Sequence[tuple[Offer, list[Row]]], *, as_json: bool, out: TextIO) -> None:
    """Write what was found, for people or as JSON."""
    if as_json:
        print(json.dumps([document(offer, rows) for offer, rows in found]), file=out)
        return
    for offer, rows in found:
        out.writelines(f"{line}\n" for line in lines(offer, rows))


def document(offer: Offer, rows: Sequence[Row]) -> dict[str, object]:
    """Return what was found for machines."""
    return {
        "reference": str(offer.reference),
        "digest": offer.digest,
        "image": offer.spec.name,
        "arch": offer.spec.arch,
        "trusted": not failed(rows),
        "rows": [row._asdict() for row in rows],
    }


def lines(offer: Offer, rows: Sequence[Row]) -> Iterator[str]:
    """Yield what was found for people: a line for each thing that was looked at."""
    what = max(len(row.what) for row in rows)
    outcome = max(len(row.outcome) for row in rows)
    yield f"{offer.spec.name} for {offer.spec.arch}: {offer.reference}"
    for row in rows:
        yield f"{row.what:<{what}}  {row.outcome:<{outcome}}  {row.detail}".rstrip()


def failed(rows: Sequence[Row]) -> list[str]:
    """Return what failed; nothing for what is trusted."""
    return [row.what for row in rows if row.outcome == "failed"]


def _published(offer: Offer) -> Published:
    what = str(offer.reference)
    layers = oci.titles(offer.manifest, what=what)
    files = {title: oci.plain(layer, what=what)[0] for title, layer in layers.items()}
    return Published(
        offer.digest.partition(":")[2],
        {title: digest.partition(":")[2] for title, digest in files.items()},
    )
