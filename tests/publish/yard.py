"""Images that were built, without building any: objects of a real store with made-up bytes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from fcbuild import spec
from fcbuild.fingerprint import Json
from fcbuild.plan import Plan
from fcbuild.publish import bundle, pull, push
from fcbuild.publish.answers import Patience
from fcbuild.publish.bundle import Bundle
from fcbuild.publish.pull import Offer
from fcbuild.publish.push import Published
from fcbuild.publish.reference import Reference, parse
from fcbuild.publish.registry import Registry
from fcbuild.recipes import Recipe
from fcbuild.series import KERNEL_FILE
from fcbuild.store import Artifact, Stage, Store

MIB = 1 << 20
QUICK = Patience(attempts=3, connect_s=5, silence_s=5, pause_s=0.01, longest_s=2)
FACTS: dict[str, Json] = {
    "size": 4 * MIB,
    "content": MIB,
    "argv": ["/tool"],
    "health": False,
    "health_ms": 0,
    "users": {"root": [0, 0, "/root"]},
}


@dataclass
class Yard:
    """A checkout, a store, and what is in it. seed, noise: what the root filesystems' bytes follow
    from; much of them is the same after a change."""

    root: Path
    store: Store
    seed: bytes = b"one"
    noise: bytes = field(default_factory=lambda: os.urandom(MIB))

    @property
    def plan(self) -> Plan:
        return Plan(spec.load(self.root))

    def built(self, name: str = "tool") -> tuple[Artifact, Artifact]:
        """Have kernel and root filesystem of an image in the store."""
        plan = self.plan
        image = plan.specs.images[name]
        file = KERNEL_FILE[image.arch]
        kernel = self.make(plan.kernel(image.kernel), {file: b"\x7fELF" + os.urandom(MIB)})
        disk = self.seed * 100_000 + bytes(2 * MIB) + self.noise
        files = {"rootfs.ext4": disk}
        if image.overlay_size is not None:
            files["overlay.ext4"] = bytes(MIB)
        return kernel, self.make(plan.rootfs(name), files)

    def make(self, recipe: Recipe, files: dict[str, bytes]) -> Artifact:
        def build(stage: Stage) -> None:
            for name, content in files.items():
                stage.file(name).write_bytes(content)
            if recipe.kind == "rootfs":
                stage.facts.update(FACTS)

        return self.store.obtain(recipe, build)[0]

    def bundle(self, name: str = "tool") -> Bundle:
        return bundle.of(self.plan.specs.images[name], *self.built(name))

    def publish(self, to: str, name: str = "tool", *, verified: bool = True) -> Published:
        reference = push.target(parse(to))
        with Registry(reference, push=True, patience=QUICK) as registry:
            return push.publish(
                self.bundle(name), reference, registry, scratch=self.root, verified=verified
            )

    def pull(self, source: str) -> tuple[Offer, Artifact, Artifact]:
        with Registry(parse(source), patience=QUICK) as registry:
            offer = pull.resolve(registry)
            return offer, *pull.obtain(offer, registry, self.store)

    def receipt(self, name: str = "tool", **other: object) -> Path:
        """Write the receipt of a boot that went well, but for `other`."""
        kernel, rootfs = self.built(name)

        def made(artifact: Artifact, file: str) -> dict[str, str]:
            return {
                "fingerprint": artifact.fingerprint,
                "digest": f"sha256:{artifact.digests[file]}",
            }

        arch = self.plan.specs.images[name].arch
        path = self.root / "receipt.json"
        found = {
            "ok": True,
            "error": None,
            "kernel": made(kernel, KERNEL_FILE[arch]),
            "rootfs": made(rootfs, "rootfs.ext4"),
        }
        path.write_text(json.dumps({**found, **other}))
        return path


def change(yard: Yard, name: str = "tool") -> None:
    """Make an image another one, of other bytes."""
    (yard.root / "images" / name / "Dockerfile").write_text("FROM scratch\nCOPY tool /other\n")
    yard.seed = b"two"


def at(host: str, repository: str, tag: str = "1") -> str:
    return str(Reference(host, repository, tag))
