"""Which root filesystem is meant: an image's name, or the beginning of a fingerprint."""

from __future__ import annotations

import re

from fcbuild.errors import ImageError, SpecError, did_you_mean
from fcbuild.fingerprint import SHORT
from fcbuild.plan import Plan
from fcbuild.store import Artifact, Store

ROOTFS = "rootfs"
SHORTEST = 4  # characters of a fingerprint; fewer are a slip of the finger

_PREFIX = re.compile(rf"[0-9a-f]{{{SHORTEST},64}}")


def rootfs(word: str, plan: Plan, store: Store) -> Artifact:
    """Return the root filesystem of an image as it is now, or the one with this fingerprint, held.

    Raises SpecError for a name that no image has, ImageError for what is not built or not clear.
    """
    if word in plan.bootable():
        if found := store.hold(plan.rootfs(word)):
            return found
        raise _not_built(word, store)
    if word in plan.specs.images:
        raise SpecError(
            [f"{word} is a base for other images: it has no root filesystem to look into"],
            hint=f"root filesystems: {', '.join(plan.bootable())}",
        )
    matching = []
    if _PREFIX.fullmatch(word):
        matching = [item for item in store.objects(ROOTFS) if item.fingerprint.startswith(word)]
    if len(matching) > 1:
        listed = (f"{item.fingerprint[:16]} ({item.name})" for item in matching)
        raise ImageError(
            f"{word} is the beginning of {len(matching)} root filesystems' fingerprints",
            hint=f"give more of it: {', '.join(listed)}",
        )
    if not matching or not store.keep(matching[0].directory):
        near = did_you_mean(word, plan.bootable())
        raise SpecError(
            [f"no image {word!r}{near}, and no root filesystem in the store has this fingerprint"],
            hint=f"root filesystems: {', '.join(plan.bootable())}; of a fingerprint, at least "
            f"{SHORTEST} characters",
        )
    return matching[0]


def _not_built(name: str, store: Store) -> ImageError:
    older = [item.fingerprint[:SHORT] for item in store.objects(ROOTFS) if item.name == name]
    kept = f"; built earlier, from other inputs: {', '.join(older)}" if older else ""
    return ImageError(
        f"{name}, as it is now, is not built{kept}", hint=f"doit build image={name} makes it"
    )
