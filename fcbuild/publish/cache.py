"""A cache that builders share: objects of the store in a repository, each under its fingerprint.

    REPOSITORY:KIND-FINGERPRINT    manifest: artifactType OBJECT, the object's document as its
                                   config, its files as compressed layers

Only what takes long and is small enough is there: kernels, our own programs, root filesystems. Who
may write the repository is believed about what an input makes, as one's own store is; everything
else is compared: every file with its digest in the document, that with the manifest's. What is not
right is said, and built here. A cache that is down or slow is given up for the rest of the run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcbuild import progress
from fcbuild.errors import ArtifactError, FcBuildError, RegistryError, SpecError
from fcbuild.fingerprint import canonical
from fcbuild.publish import oci, pull, push, reference
from fcbuild.publish.answers import Patience
from fcbuild.publish.bundle import File
from fcbuild.publish.oci import Manifest
from fcbuild.publish.reference import Reference
from fcbuild.publish.registry import Registry
from fcbuild.recipes import Kind, Recipe
from fcbuild.store import Artifact, Stage

WHERE = "FCBUILD_CACHE"  # REGISTRY/REPOSITORY
WRITE = "FCBUILD_CACHE_PUSH"  # 1: what is built here goes there
KINDS: frozenset[Kind] = frozenset({"kernel", "init", "agent", "rootfs"})
# A build is what waits for it, and can do without.
PATIENCE = Patience(
    attempts=2, connect_s=5.0, silence_s=10.0, pause_s=0.5, longest_s=5.0, rate=512 << 10
)

OBJECT = "application/vnd.fcbuild.object.v1"
CONFIG = "application/vnd.fcbuild.object.config.v1+json"
FILE = "application/vnd.fcbuild.object.file.v1"
SCHEMA = 1


class Cache:
    """The cache at a reference. write: whether to put there what is built here."""

    def __init__(
        self,
        place: Reference,
        *,
        write: bool = False,
        downloads: Path,
        patience: Patience = PATIENCE,
    ) -> None:
        self.place = place
        self.write = write
        self._downloads = downloads
        self._patience = patience
        self._lacks: set[str] = set()
        self._given_up = threading.Event()

    def restore(self, recipe: Recipe, stage: Stage) -> bool:
        """Put the files of a recipe's object into the stage; return whether they are there. If not,
        the stage is as it was. Raises nothing that has to do with the cache."""
        tag = _tag(recipe)
        if recipe.kind not in KINDS or tag in self._lacks or self._given_up.is_set():
            return False
        try:
            with Registry(self.place, patience=self._patience) as registry:
                found = registry.find(tag)
                if found is not None:
                    what = f"{self.place.name}:{tag}"
                    with progress.step(f"{recipe}: fetching {recipe.short} from {self.place}"):
                        manifest = oci.read(found[1], found[0].media_type, what=what)
                        self._restore(recipe, stage, registry, manifest, what)
                    return True
        except ArtifactError as error:
            progress.say(f"warning: {recipe}: what the cache has is not used: {error.message}")
        except RegistryError as error:
            self._give_up(error.message)
        self._lacks.add(tag)
        for path in stage.directory.iterdir():
            path.unlink()
        return False

    def keep(self, recipe: Recipe, artifact: Artifact, scratch: Path) -> None:
        """Put an object that was built into the cache, where that may be written. scratch: where
        its compressed files are for as long. Raises nothing that has to do with the cache."""
        if not self.write or recipe.kind not in KINDS or self._given_up.is_set():
            return
        try:
            with Registry(self.place, push=True, patience=self._patience) as registry:
                if registry.find(_tag(recipe)) is None:
                    with progress.step(f"{recipe}: pushing {recipe.short} to {self.place}"):
                        _push(recipe, artifact, registry, scratch)
        except FcBuildError as error:
            self._give_up(error.message)
        except OSError as error:  # no room for what is compressed
            self._give_up(str(error))

    def _restore(
        self, recipe: Recipe, stage: Stage, registry: Registry, manifest: Any, what: str
    ) -> None:
        if not isinstance(manifest, Manifest) or manifest.artifact_type != OBJECT:
            raise ArtifactError(f"{what} is not an object of a store")
        document = _read(registry.read(manifest.config), recipe, what)
        layers = oci.titles(manifest, what=what)
        if layers.keys() != document["files"].keys():
            raise ArtifactError(f"{what}: its manifest and its document differ")
        for name, layer in layers.items():
            said, executable = document["files"][name]
            if oci.plain(layer, what=what) != (f"sha256:{said[0]}", said[1]):
                raise ArtifactError(f"{what}: its manifest and its document differ about {name}")
            to = stage.file(name)
            pull.fetch(layer, to, registry, self._downloads)
            to.chmod(0o755 if executable else 0o644)
        stage.facts.update(document["facts"])
        stage.log.write(f"fetched from {what}\n".encode())

    def _give_up(self, why: str) -> None:
        if not self._given_up.is_set():
            self._given_up.set()
            progress.say(f"warning: doing without the cache: {why}")


def asked(environ: Mapping[str, str], downloads: Path) -> Cache | None:
    """Return the cache that the environment names, or None. Raises SpecError."""
    where = environ.get(WHERE)
    if not where:
        return None
    place = reference.parse(where, what=WHERE)
    if place.tag or place.digest:
        raise SpecError([f"{WHERE}={where}: a cache is a repository, without tag or digest"])
    push_too = environ.get(WRITE, "")
    if push_too not in ("", "0", "1"):
        raise SpecError([f"{WRITE}={push_too}: expected 1 or 0"])
    return Cache(place, write=push_too == "1", downloads=downloads)


def _tag(recipe: Recipe) -> str:
    return f"{recipe.kind}-{recipe.fingerprint}"


def _push(recipe: Recipe, artifact: Artifact, registry: Registry, scratch: Path) -> None:
    files = [
        File(name, FILE, path, path.stat().st_mode & 0o777, digest, artifact.sizes[name])
        for name, digest in artifact.digests.items()
        for path in [artifact.file(name)]
    ]
    document = canonical(
        {
            "schema": SCHEMA,
            "kind": recipe.kind,
            "fingerprint": recipe.fingerprint,
            "facts": artifact.facts,
            "files": {
                file.title: {
                    "sha256": file.digest,
                    "size": file.size,
                    "executable": bool(file.mode & 0o100),
                }
                for file in files
            },
        }
    )
    config = oci.describe(CONFIG, document)
    registry.push(config, document)
    layers = push.upload(files, registry, scratch)
    manifest = Manifest(OBJECT, config, tuple(layer.descriptor for layer in layers))
    registry.put(manifest.document(), oci.MANIFEST, _tag(recipe))


def _read(content: bytes, recipe: Recipe, what: str) -> dict[str, Any]:
    """Return facts, and files as name -> ((sha256, size), executable), of an object's document.
    Raises ArtifactError for another object's, and for what is none."""
    try:
        found = json.loads(content)
        if found["schema"] != SCHEMA:
            raise ArtifactError(f"{what} is of schema {found['schema']}, not {SCHEMA}")
        if (found["kind"], found["fingerprint"]) != (recipe.kind, recipe.fingerprint):
            raise ArtifactError(f"{what} is another object")
        files = {
            name: ((str(file["sha256"]), int(file["size"])), file["executable"] is True)
            for name, file in found["files"].items()
        }
        return {"facts": dict(found["facts"]), "files": files}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{what}: its document cannot be used: {error!r}") from error
