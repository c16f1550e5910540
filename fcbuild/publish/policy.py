"""Whom to trust for what is published where: policy.toml. Pure, but for reading the file.

    [signer.release]                      # one who may sign: by key, as in release.pub,
    key = "ssh-ed25519 AAAAC3Nz..."
    [signer.ci]                           # or by Sigstore, without a key: who signed in to what
    issuer = "https://token.example.com"
    identity = "https://example.com/team/images/publish.yml@refs/heads/main"

    [[artifact]]                          # the first whose `from` fits is what counts
    from = "registry.example.com/team/*"  # REGISTRY/REPOSITORY; * stands for anything in it
    images = ["debian-web"]               # only these; any, when left out
    signers = ["release", "ci"]           # each piece of evidence is signed by one of them
    evidence = ["boot", "provenance", "sbom"]

    [[artifact]]
    from = "localhost:5000/*"
    unsigned = true                       # nothing is asked of it

What no [[artifact]] fits is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, get_args

from fcbuild import tables
from fcbuild.errors import SpecError, did_you_mean
from fcbuild.publish import key as keys
from fcbuild.publish.key import PublicKey
from fcbuild.publish.reference import Reference
from fcbuild.publish.statement import Kind
from fcbuild.tables import Table

FILE = "policy.toml"
KINDS: tuple[Kind, ...] = get_args(Kind)

_ANY = "*"
# The registry stands before the first slash and is compared as it is: a * in it would also fit
# hosts of others.
_FROM = re.compile(r"\*|[^/*?\s]+/\S+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URI = re.compile(r"[!-~]{1,1024}")


class Identity(NamedTuple):
    """A signer without a key: whom the issuer of an identity says it was."""

    issuer: str
    identity: str


Signer = PublicKey | Identity


class Rule(NamedTuple):
    """What is asked of artifacts. where: how messages call it; images: none for any; signers: by
    name; evidence: none where nothing is asked."""

    where: str
    pattern: str
    images: tuple[str, ...]
    signers: Mapping[str, Signer]
    evidence: tuple[Kind, ...]

    def fits(self, reference: Reference) -> bool:
        """Return whether it is about what is published there."""
        if self.pattern == _ANY:
            return True
        registry, _, repository = self.pattern.partition("/")
        return registry == reference.registry and fnmatchcase(reference.repository, repository)


class Policy(NamedTuple):
    """The rules, in their order."""

    rules: tuple[Rule, ...]

    def rule(self, reference: Reference) -> Rule | None:
        """Return the rule that counts, or None: then nothing published there is trusted."""
        return next((rule for rule in self.rules if rule.fits(reference)), None)


def of_key(key: PublicKey, name: str) -> Policy:
    """Return the policy that a key alone stands for: it has signed all there is to be."""
    return Policy((Rule(f"key={name}", _ANY, (), {name: key}, KINDS),))


def read(path: Path) -> Policy:
    """Read a policy. Raises SpecError with all that is wrong in it."""
    problems: list[str] = []
    table = tables.read(path, str(path), problems)
    signers = table.table("signer")
    known = {name: _signer(name, signers.table(name), signers) for name in signers.values}
    rules = tuple(
        _rule(f"{path.name}: artifact[{number}]", one, known)
        for number, one in enumerate(table.tables("artifact"), start=1)
    )
    table.finish()
    if not rules and not problems:
        problems.append(f"{path}: no [[artifact]]: with it, nothing would be trusted")
    if problems:
        raise SpecError(problems)
    return Policy(rules)


def _signer(name: str, table: Table, above: Table) -> Signer:
    if not _NAME.fullmatch(name):
        above.problem(name, f"a name like {_NAME.pattern}", name)
    nobody = PublicKey(b"")
    if "key" in table.values:
        found: Signer = table.get(
            "key",
            "a public key of ed25519, ssh-ed25519 AAAA...",
            nobody,
            lambda value: keys.parse(value) if isinstance(value, str) else None,
        )
    else:
        for word in ("issuer", "identity"):
            if word not in table.values:
                table.problems.append(
                    f"{table.where}: {table.prefix}{word} is missing (or a key in place of both)"
                )
        found = Identity(
            table.string("issuer", pattern=_URI), table.string("identity", pattern=_URI)
        )
    table.finish()
    return found


def _rule(where: str, table: Table, known: Mapping[str, Signer]) -> Rule:
    table.require("from")
    unsigned = table.boolean("unsigned")
    signers, evidence = table.strings("signers"), table.strings("evidence")
    for name in signers:
        if name not in known:
            table.problem("signers", f"names of [signer.NAME]{did_you_mean(name, known)}", name)
    for word in evidence:
        if word not in KINDS:
            expected = f"some of {', '.join(KINDS)}{did_you_mean(word, KINDS)}"
            table.problem("evidence", expected, word)
    if unsigned and (signers or evidence):
        table.problem("unsigned", "no signers and no evidence beside it", unsigned)
    if not unsigned:
        for key, value in (("signers", signers), ("evidence", evidence)):
            if not value:
                table.problems.append(
                    f"{table.where}: {table.prefix}{key} is missing; unsigned = true asks nothing"
                )
    rule = Rule(
        where,
        table.string("from", _ANY, _FROM),
        table.strings("images"),
        {name: known[name] for name in signers if name in known},
        tuple(kind for kind in KINDS if kind in evidence),
    )
    table.finish()
    return rule
