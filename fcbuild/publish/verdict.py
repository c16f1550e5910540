"""Whether an artifact is to be trusted: the evidence on it, held to one rule of a policy. Pure.

A piece of evidence counts when an allowed signer signed it, it is about this very manifest, by
digest, and says what it has to. What else is attached proves nothing and harms nothing, because
whoever may write to the repository may attach anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fcbuild.errors import EvidenceError, ToolMissing
from fcbuild.look.text import visible
from fcbuild.publish import bootresult, dsse, keyless, sbom, statement
from fcbuild.publish.key import PublicKey
from fcbuild.publish.policy import KINDS, Identity, Rule, Signer
from fcbuild.publish.statement import Kind, Statement
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.series import KERNEL_FILE

_SHOWN = 160  # characters of what a stranger wrote
_REASONS = 3


Outcome = Literal["ok", "failed", "not asked"]


class Piece(NamedTuple):
    """What somebody attached: a signed envelope or a bundle, and nothing of it is known yet."""

    media_type: str
    content: bytes


class Published(NamedTuple):
    """An artifact in a registry. sha256: of its manifest; files: the sha256 of each file that it
    holds, before compression, by name."""

    sha256: str
    files: Mapping[str, str]


class Row(NamedTuple):
    """One thing that was looked at."""

    what: str
    outcome: Outcome
    detail: str


class _Proven(NamedTuple):
    """A statement that an allowed signer made about the artifact, and what it says, in words."""

    kind: Kind
    who: str
    detail: str


def judge(artifact: Published, pieces: Iterable[Piece], rule: Rule) -> list[Row]:
    """Return what holds of what the rule asks for. Trusted is an artifact of which no row fails."""
    if not rule.evidence:
        return [Row("policy", "ok", f"{rule.where}: nothing is asked of {rule.pattern}")]
    proven: list[_Proven] = []
    reasons: list[str] = []
    for piece in pieces:
        try:
            proven.append(_prove(piece, artifact, rule))
        except (EvidenceError, ToolMissing) as error:
            reasons.append(_shown(error.message))
    why = "; ".join(dict.fromkeys(reasons[:_REASONS]))
    signature = Row("signature", "failed", why or "nothing is attached")
    if who := sorted({one.who for one in proven}):
        signature = Row("signature", "ok", f"by {', '.join(who)}")
    asked = f"{rule.where}: {', '.join(rule.evidence)} by {' or '.join(rule.signers)}"
    return [
        Row("policy", "ok", asked),
        signature,
        *(_row(kind, proven, reasons, rule) for kind in KINDS),
    ]


def _row(kind: Kind, proven: Sequence[_Proven], reasons: Sequence[str], rule: Rule) -> Row:
    found = next((one for one in proven if one.kind == kind), None)
    if found:
        return Row(kind, "ok", f"{found.detail}; signed by {found.who}")
    if kind not in rule.evidence:
        return Row(kind, "not asked", "")
    about = [reason for reason in reasons if reason.startswith(f"{kind}: ")]
    said = "; ".join(about[:_REASONS]).removeprefix(f"{kind}: ")
    return Row(kind, "failed", said or "nothing that counts is attached")


def _prove(piece: Piece, artifact: Published, rule: Rule) -> _Proven:
    """Return what a piece proves. Raises EvidenceError, ToolMissing."""
    who, kind, payload = _opened(piece, rule.signers)
    if kind != statement.MEDIA_TYPE:
        raise EvidenceError(f"what {who} signed is {kind!r}, not {statement.MEDIA_TYPE}")
    said = statement.parse(payload)
    if said.kind is None:
        raise EvidenceError(f"what {who} says is of a type not known here: {said.predicate_type}")
    try:
        return _Proven(said.kind, who, _says(said, artifact, rule))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvidenceError(f"{said.kind}: it makes no sense: {error!r}") from error


def _opened(piece: Piece, signers: Mapping[str, Signer]) -> tuple[str, str, bytes]:
    """Return who signed a piece, and the type and bytes of what was signed."""
    if piece.media_type == keyless.MEDIA_TYPE:
        identities = {n: one for n, one in signers.items() if isinstance(one, Identity)}
        if not identities:
            raise EvidenceError("a Sigstore bundle, and no signer that has an identity may sign")
        return keyless.opened(piece.content, identities)
    envelope = dsse.parse(piece.content)
    keys = {name: one for name, one in signers.items() if isinstance(one, PublicKey)}
    found = dsse.signers(envelope, keys)
    if not found:
        named = ", ".join(keyid or "a key without a name" for keyid, _ in envelope.signatures)
        raise EvidenceError(f"signed by nobody who may: by {named}")
    return found[0], envelope.payload_type, envelope.payload


def _says(said: Statement, artifact: Published, rule: Rule) -> str:
    """Return what a statement says, in words. Raises EvidenceError for one that does not count."""
    kind = said.kind
    names = said.names(artifact.sha256)
    if not names:
        raise EvidenceError(f"{kind}: it is about another artifact")
    if rule.images and not set(names) & set(rule.images):
        raise EvidenceError(
            f"{kind}: it is about {', '.join(names)}, not {' or '.join(rule.images)}"
        )
    words = {"boot": _boot, "provenance": _provenance, "sbom": _sbom}[str(kind)]
    return _shown(", ".join(words(said.predicate, artifact)))


def _boot(predicate: Mapping[str, Any], artifact: Published) -> Iterator[str]:
    configured = {str(one["name"]): one for one in predicate["configuration"]}
    (kernel,) = (name for name in KERNEL_FILE.values() if name in artifact.files)
    for file in (kernel, ROOTFS_FILE):
        if configured[file]["digest"]["sha256"] != artifact.files[file]:
            raise EvidenceError(f"boot: what was booted was another {file}")
    result = str(predicate["result"])
    if result != bootresult.PASSED:
        failed = ", ".join(map(str, predicate.get("failedTests", ())))
        raise EvidenceError(f"boot: it {result.lower()}: {failed}")
    for name, one in configured.items():
        if version := one.get("annotations", {}).get("version"):
            yield f"{name} {version}, KVM {one['annotations'].get('kvm')}"
    yield from map(str, predicate.get("passedTests", ()))


def _provenance(predicate: Mapping[str, Any], artifact: Published) -> Iterator[str]:
    definition = predicate["buildDefinition"]
    yield f"{definition['buildType']} by {predicate['runDetails']['builder']['id']}"
    yield f"{len(definition.get('resolvedDependencies', ()))} dependencies"


def _sbom(predicate: Mapping[str, Any], artifact: Published) -> Iterator[str]:
    if predicate["bomFormat"] != sbom.FORMAT:
        raise ValueError(f"bomFormat {predicate['bomFormat']!r}")
    yield f"{sbom.FORMAT} {predicate['specVersion']}"
    yield f"{len(predicate.get('components', ()))} components"


def _shown(text: str) -> str:
    return visible(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
