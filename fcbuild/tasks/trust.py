"""What the tasks do about trust: evidence goes with what is published, and is asked for of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doit import get_var

from fcbuild import progress
from fcbuild.errors import NotTrusted, SpecError
from fcbuild.tasks import commands
from fcbuild.tasks.action import quiet_pipe

if TYPE_CHECKING:
    from fcbuild.publish.evidence import Predicates
    from fcbuild.publish.key import PrivateKey
    from fcbuild.publish.oci import Descriptor
    from fcbuild.publish.policy import Policy
    from fcbuild.publish.pull import Offer
    from fcbuild.publish.registry import Registry
    from fcbuild.publish.subject import Subject
    from fcbuild.tasks.project import Project

_MAX_RECEIPT = 64 << 20  # bytes


class Witness:
    """Says, under its own key, what is so of the images that are published."""

    def __init__(self, project: Project, key: PrivateKey) -> None:
        self._project = project
        self._key = key
        self._said: dict[str, tuple[Subject, Predicates]] = {}

    def see(self, name: str, *, booted: bool) -> None:
        """Look into a built image, before anything of it is published. booted: whether its receipt
        is of this image. Raises EvidenceError, ImageError."""
        from fcbuild.publish import evidence
        from fcbuild.publish.subject import Subject

        project, image = self._project, self._project.plan.specs.images[name]
        kernel, rootfs = project.plan.kernel(image.kernel), project.plan.rootfs(name)
        about = Subject(name, image.arch, project.store.need(kernel), project.store.need(rootfs))
        receipt = project.artifacts / "receipts" / f"{name}.json"
        with (
            progress.step(f"{name}: looking at what is in it"),
            commands.opened(project, about.rootfs, reader=project.reader or "debugfs") as (tree,),
        ):
            said = evidence.predicates(
                about,
                rootfs=rootfs,
                kernel=kernel,
                tree=tree,
                receipt=_read(receipt, _MAX_RECEIPT) if booted else None,
                store=project.store,
            )
        self._said[name] = about, said

    def attach(self, name: str, manifest: Descriptor, registry: Registry) -> None:
        """Sign what was seen, and attach it to a manifest. Raises RegistryError."""
        from fcbuild.publish import evidence

        new = evidence.attach(registry, manifest, *self._said[name], self._key)
        print(f"signed    {', '.join(new) or 'before':<25}  {self._key.public.keyid}")


def witness(project: Project) -> Witness | None:
    """Return who says what is so, where key= names a key to sign with. Raises SpecError."""
    path = get_var("key")
    if path is None:
        return None
    from fcbuild.publish import key

    found = key.private(Path(path))
    if Path(path).stat().st_mode & 0o077:
        progress.say(f"warning: key={path}: others may read it; chmod 600 {path}")
    return Witness(project, found)


def bundle(names: Sequence[str]) -> bytes | None:
    """Return the Sigstore bundle that bundle= names, to be attached to the one image that is
    published. Raises SpecError, EvidenceError."""
    path = get_var("bundle")
    if path is None:
        return None
    from fcbuild.publish import dsse, keyless

    if len(names) != 1:
        raise SpecError([f"bundle={path} is for one image, not for {', '.join(names)}"])
    content = _read(Path(path), dsse.MAX_BYTES)
    keyless.look(content, f"bundle={path}")
    return content


def policy(project: Project) -> Policy | None:
    """Return what is asked of artifacts: of key=, policy=, or policy.toml where there is one.

    Raises SpecError.
    """
    from fcbuild.publish import key
    from fcbuild.publish import policy as policies

    by_key, path = get_var("key"), get_var("policy")
    if by_key is not None and path is not None:
        raise SpecError([f"key={by_key} and policy={path}: one of them says whom to trust"])
    if by_key is not None:
        return policies.of_key(key.public(Path(by_key)), Path(by_key).name)
    file = project.root / policies.FILE
    if path is None and not file.exists():
        return None
    return policies.read(Path(path) if path is not None else file)


def insist(project: Project, offer: Offer, registry: Registry) -> None:
    """Raise NotTrusted for an image that does not pass the policy, where there is one."""
    asked = policy(project)
    if asked is None:
        return
    from fcbuild.publish import audit

    audit.insist(offer, registry, asked)
    progress.say(f"{offer.reference}: passes what is asked of it")


def verify_artifact(project: Project, as_json: bool) -> None:  # noqa: FBT001 (doit's way to pass it)
    """Show what holds of what a registry has, for every architecture. Raises NotTrusted where
    something does not."""
    from fcbuild.publish import audit, reference
    from fcbuild.publish import policy as policies
    from fcbuild.publish.registry import Registry

    if project.source is None:
        raise SpecError(["verify-artifact looks at what is published: from=REGISTRY/REPOSITORY"])
    source = reference.parse(project.source, what="from")
    asked = policy(project)
    if asked is None:
        raise SpecError(
            [f"nothing says whom to trust: there is no {policies.FILE}"],
            hint="key=FILE.pub trusts one key; README.md shows a policy",
        )
    with (
        Registry(source) as registry,
        tempfile.TemporaryDirectory(prefix="verify-", dir=project.artifacts) as scratch,
    ):
        found = [
            (
                offer,
                [
                    *audit.judge(offer, registry, asked),
                    audit.digests(offer, registry, Path(scratch)),
                ],
            )
            for offer in audit.offers(registry)
        ]
    with quiet_pipe():
        audit.show(found, as_json=as_json, out=sys.stdout)
    wrong = [
        f"{offer.reference} is not trusted: {', '.join(audit.failed(rows))}"
        for offer, rows in found
        if audit.failed(rows)
    ]
    if wrong:
        raise NotTrusted("\n".join(wrong))


def _read(path: Path, most: int) -> bytes:
    """Return what is in a file. Raises SpecError for one that cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise SpecError([f"{path} cannot be read: {error.strerror}"]) from error
    if len(content) > most:
        raise SpecError([f"{path}: larger than {most >> 20} MiB"])
    return content
