"""How an image was made and what from, as SLSA provenance. Pure: a plan's recipes say it.

A recipe's fingerprint is the store's and the artifact's, so what the recipe names is what the files
were made from. (https://slsa.dev/spec/v1.0/provenance; our types: EVIDENCE.md)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from fcbuild import __version__
from fcbuild.fingerprint import Json, canonical
from fcbuild.plan import EPOCH_ARG
from fcbuild.publish import purl
from fcbuild.publish.subject import Kernel, Subject
from fcbuild.recipes import Recipe

# Not places on the web: nobody else can ever publish under them.
BUILD_TYPE = "urn:fcbuild:microvm:1"
BUILDER = "urn:fcbuild:builder:1"
TREE = "fcbuildTree"  # the digest of a directory; no algorithm of in-toto's has modes and links

# Of bases that were not made of the packages that are locked: how these differ, by fingerprint.
Moved = Mapping[str, Json]


def predicate(
    subject: Subject, rootfs: Recipe, kernel: Recipe, known: Kernel, moved: Moved
) -> dict[str, Json]:
    """Return the predicate. rootfs, kernel: the recipes of the subject's objects.

    Values of build arguments are not in it: who writes them does not expect to publish them.
    """
    recipes = {str(recipe): recipe for recipe in all_of(rootfs, kernel)}
    dependencies: list[Json] = []
    for recipe in recipes.values():
        dependencies += _dependencies(recipe, known, moved)
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "image": subject.image,
                "arch": subject.arch,
                "kernel": subject.kernel.name,
                "buildArguments": _arguments(rootfs),
            },
            "internalParameters": {
                "fingerprints": {name: recipe.fingerprint for name, recipe in recipes.items()}
            },
            "resolvedDependencies": dependencies,
        },
        "runDetails": {"builder": {"id": BUILDER, "version": {"fcbuild": __version__}}},
    }


def all_of(*recipes: Recipe) -> Iterator[Recipe]:
    """Yield recipes and all that they stand on, parents first."""
    for recipe in recipes:
        yield from all_of(*recipe.parents)
        yield recipe


def _arguments(rootfs: Recipe) -> list[Json]:
    """Return the names of the arguments that the image's Dockerfile is built with."""
    container = next(one for one in rootfs.parents if one.kind in {"container", "base"})
    names: Mapping[str, Any] = _table(container.inputs.get("args"))
    return [name for name in sorted(names) if name != EPOCH_ARG]


def _dependencies(recipe: Recipe, known: Kernel, moved: Moved) -> Iterator[Json]:
    inputs: Mapping[str, Any] = recipe.inputs
    if recipe.kind == "base":
        yield from _base(recipe, moved)
    elif recipe.kind == "container":
        yield {"name": f"images/{recipe.name}", "digest": {TREE: _tree(inputs["context"])}}
        if described := inputs.get("dockerfile") or _table(inputs["context"]).get("Dockerfile"):
            name = f"images/{recipe.name}/Dockerfile"
            yield {"name": name, "digest": {"sha256": described.rpartition(" ")[2]}}
        for name, digest in sorted(inputs["images"].items()):
            yield _image(name, digest, str(inputs["platform"]))
    elif recipe.kind == "init":
        yield {"name": "fcbuild/guest", "digest": {TREE: _tree(inputs["sources"])}}
    elif recipe.kind == "kernel":
        yield from _kernel(recipe, known)


def _base(recipe: Recipe, moved: Moved) -> Iterator[Json]:
    inputs: Mapping[str, Any] = recipe.inputs
    about: dict[str, Json] = {"suite": inputs["suite"], "fingerprint": recipe.fingerprint}
    lock = inputs["lock"]
    if recipe.fingerprint in moved:
        about["notAsLocked"] = moved[recipe.fingerprint]
    elif lock is None:
        about["locked"] = False
    yield {"name": str(recipe), "annotations": about}
    if lock is not None and recipe.fingerprint not in moved:
        for named, version in sorted(lock["packages"].items()):
            name, _, arch = named.partition(":")
            url = purl.make(
                "deb",
                f"debian/{name}",
                version,
                arch=arch or inputs["arch"],
                distro=inputs["suite"],
            )
            yield {"uri": url}


def _image(reference: str, digest: str | None, platform: str) -> Json:
    """A container image, as BuildKit names those that it builds upon."""
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:  # a port's colon
        repository, tag = reference, "latest"
    found = {"uri": purl.make("docker", repository, tag, platform=platform)}
    return {**found, "digest": {"sha256": digest.removeprefix("sha256:")}} if digest else {**found}


def _kernel(recipe: Recipe, known: Kernel) -> Iterator[Json]:
    inputs: Mapping[str, Any] = recipe.inputs
    if "sha256" in inputs:
        yield {"name": str(recipe), "digest": {"sha256": inputs["sha256"]}}
        return
    if known.source:
        yield {"name": known.source.title, "digest": {"sha256": known.source.sha256}}
    else:  # an older object does not say which of its sources was to be had
        for source in inputs["sources"]:
            name = f"{recipe} source {source['version']}"
            yield {"name": name, "digest": {"sha256": source["sha256"]}}
    for name, described in sorted(inputs["fragments"].items()):
        yield {
            "name": f"kernels/fragments/{name}",
            "digest": {"sha256": described.rpartition(" ")[2]},
        }
    for patch in inputs["patches"]:
        name, _, described = patch.partition(" ")
        yield {"name": f"{recipe} {name}", "digest": {"sha256": described.rpartition(" ")[2]}}


def _tree(described: Json) -> str:
    """Return the digest of a directory: sha256 of the canonical JSON of what the recipe says of its
    files."""
    return sha256(canonical(described)).hexdigest()


def _table(value: Json) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
