"""What the tasks do that have to do with a registry: publish, and boot what was published."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from doit import get_var

from fcbuild import progress
from fcbuild.errors import ArtifactError, RegistryError, SpecError
from fcbuild.tasks import trust
from fcbuild.tasks.commands import outcome, vmm_for

if TYPE_CHECKING:
    from fcbuild.publish.bundle import Bundle
    from fcbuild.publish.push import Published
    from fcbuild.publish.registry import Registry
    from fcbuild.tasks.project import Project

_MAX_NAME = 150  # characters of a reference in the name of a file


def publish(project: Project) -> None:
    """Push images, each under the tag that is asked for and under one that stays; print what the
    registry has now."""
    from fcbuild.publish import evidence, push, reference
    from fcbuild.publish.registry import Registry

    wanted = get_var("to")
    if wanted is None or not project.named:
        raise SpecError(
            ["publish needs an image and a place: image=NAME to=REGISTRY/REPOSITORY:TAG"],
            hint="one image for each architecture may go to one place",
        )
    verified = _verified()
    to = push.target(reference.parse(wanted, what="to"))
    witness, sigstore = trust.witness(project), trust.bundle(project.wanted)
    bundles = [_bundle(project, name, verified=verified) for name in project.wanted]
    if len({one.arch for one in bundles}) < len(bundles):
        raise SpecError(
            [f"image={get_var('image')}: more than one image for the same architecture"],
            hint="publish each under a reference of its own",
        )
    if witness:
        for one in bundles:
            witness.see(one.image, booted=verified)
    with Registry(to, push=True) as registry:
        for image in bundles:
            done = push.publish(image, to, registry, scratch=project.artifacts, verified=verified)
            _attach_delta(project, image, done, registry)
            for layer in done.layers:
                state = "pushed" if layer.pushed else "there"
                size = f"{layer.descriptor.size / (1 << 20):.1f} MiB"
                print(
                    f"{state:<9} {layer.descriptor.title:<14} {size:>10}  {layer.descriptor.digest}"
                )
            print(f"manifest  {image.image:<14} {image.arch:>10}  {done.manifest.digest}")
            print(f"stays     {to.tagged(done.fingerprint)}")
            if witness:
                witness.attach(image.image, done.manifest, registry)
            if sigstore:
                evidence.attach_bundle(registry, done.manifest, sigstore)
            print(f"published {to}@{done.digest}{'' if verified else '  (unverified)'}")


def boot(project: Project, source: str) -> None:
    """Boot what a registry has, run its checks, write the receipt and say how it went."""
    from fcbuild.publish import pull, reference
    from fcbuild.publish.registry import Registry
    from fcbuild.verify import verify

    with Registry(reference.parse(source, what="from")) as registry:
        offer = pull.resolve(registry)
        if not offer.verified:
            progress.say(f"warning: {offer.reference} was published without a boot that proves it")
        trust.insist(project, offer, registry)
        kernel, rootfs = pull.obtain(offer, registry, project.store)
    vmm = vmm_for(project, offer.spec.arch)
    # Beside the receipts of what is in images/, whose names have no @. One for a reference: what a
    # tag led to before is not kept by it.
    where = re.sub(r"[^A-Za-z0-9._-]+", "_", source)[:_MAX_NAME]
    receipt_path = project.artifacts / "receipts" / f"{offer.spec.name}@{where}.json"
    how = f"KVM {vmm.kind}" if vmm.kind != "none" else "emulated"
    progress.say(f"booting {offer.reference} in {vmm.name} {vmm.version}, {how}")
    receipt = verify(
        offer.spec,
        kernel=kernel,
        rootfs=rootfs,
        vmm=vmm,
        receipt_path=receipt_path,
        instance=project.instance,
    )
    project.store.adopt(project.artifacts)
    print(f"image     {offer.spec.name}  {offer.reference}")
    for line in outcome(receipt):
        print(line)
    print(f"receipt   {os.path.relpath(receipt_path)}")


def _attach_delta(project: Project, image: Bundle, done: Published, registry: Registry) -> None:
    """Attach what the new version differs from the one before. What is published is whole without,
    so an old version that cannot be read is only said."""
    from fcbuild.publish import predecessor

    if done.previous is None:
        return
    rootfs = project.store.need(project.plan.rootfs(image.image))
    try:
        made = predecessor.attach(
            done.previous, done.manifest, rootfs, registry, project.store, project.artifacts
        )
    except (ArtifactError, RegistryError) as error:
        progress.say(f"warning: no delta is published: {error.message}")
        return
    if made is not None:
        share = 100 * made.size / made.whole
        print(f"delta     {made.size / 1024:.0f} KiB, {share:.2f} % of the disk, from {made.base}")


def _verified() -> bool:
    said = get_var("unverified")
    if said not in (None, "0", "1"):
        raise SpecError([f"unverified={said}: expected 1, or leave it out"])
    return bool(said != "1")


def _bundle(project: Project, name: str, *, verified: bool) -> Bundle:
    from fcbuild.publish import bundle, proof

    spec = project.plan.specs.images[name]
    kernel, rootfs = bundle.parts(project.plan, project.store, name)
    if verified:
        proof.check(project.artifacts / "receipts" / f"{name}.json", spec, kernel, rootfs)
    return bundle.of(spec, kernel, rootfs)
