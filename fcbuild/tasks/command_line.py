"""What a user may say on the command line besides tasks: variables, NAME=VALUE, and options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doit import get_var

from fcbuild.errors import SpecError, did_you_mean

# Variables of the command line, NAME=VALUE. doit would ignore, without a word, others.
VARIABLES = {
    "image": "which images: names and globs, separated by commas",
    "kvm": "native or emulated: where Firecracker runs",
    "instance": "a TOML file with one VM's own values, for boot",
    "path": "what to look at in an image: a directory or a file",
    "a": "an image, or the beginning of a root filesystem's fingerprint, to compare",
    "b": "the same, to compare it with",
    "reader": "guestfs or debugfs: what reads a root filesystem",
    "kernel": "for lock: which series of kernels/, names and globs, separated by commas",
    "to": "for publish: REGISTRY/REPOSITORY[:TAG]; for export: the path to write to",
    "format": "for export: dir, tar, oci-layout or containerdisk",
    "from": "for boot (in place of image=) and verify-artifact: REGISTRY/REPOSITORY:TAG or @DIGEST",
    "unverified": "for publish: 1 to publish without the receipt of a boot",
    "key": "a file: for publish, the ed25519 key to sign with; where from= is, the public one",
    "policy": "a file that says whom to trust, where from= is; policy.toml when left out",
    "bundle": "for publish: a file with Sigstore's bundle about what was published before",
    "age": "for gc: how long to keep what was not used, 30d when left out; 12h, 0",
    "size": "for gc: how large the store may be, 20GiB when left out",
}
KVM_CHOICES = ("native", "emulated")
READERS = ("guestfs", "debugfs")


def _flag(name: str, text: str) -> dict[str, Any]:
    """Return an option that is there or not, as doit describes it."""
    long = name.replace("_", "-")
    return {"name": name, "long": long, "type": bool, "default": False, "help": text}


# Options of tasks.
JSON = _flag("json", "for machines")
CHECK = _flag("check", "only show what moved; fail when something did")
MATRIX = _flag("matrix", "what is missing, for the matrix of a CI job")
DRY_RUN = _flag("dry_run", "only show what would be done")
ALL = _flag("all", "every line")
NO_KERNEL = _flag("no_kernel", "leave the kernels out")


def check_variables(argv: list[str]) -> None:
    """Raise SpecError for a variable that nobody reads."""
    for word in argv:
        name, equals, _ = word.partition("=")
        if equals and not word.startswith("-") and name not in VARIABLES:
            known = "; ".join(f"{key}= ({text})" for key, text in VARIABLES.items())
            raise SpecError(
                [f"unknown variable {name}={did_you_mean(name, VARIABLES)}"], hint=f"known: {known}"
            )


def choice_of(variable: str, choices: Sequence[str]) -> str | None:
    """Return the value of a variable, or None. Raises SpecError for one that is no choice."""
    value: str | None = get_var(variable)
    if value is not None and value not in choices:
        near = did_you_mean(value, choices)
        raise SpecError([f"{variable}={value}: expected {' or '.join(choices)}{near}"])
    return value
