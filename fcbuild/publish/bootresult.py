"""That an image was booted, and what came of it: a receipt as in-toto's test result. Pure.

What the guest's programs wrote stays in the receipt: it may be meant for nobody else.
(https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md)
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from fcbuild.errors import EvidenceError
from fcbuild.fingerprint import Json
from fcbuild.publish import jsontext
from fcbuild.publish.subject import Subject
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.verify import SCHEMA

PASSED, FAILED = "PASSED", "FAILED"
RECEIPT = "receipt.json"


def predicate(receipt: bytes, subject: Subject) -> dict[str, Json]:
    """Return the predicate that a receipt makes. Raises EvidenceError for one that is not about
    these very files, or is none."""
    try:
        return _predicate(jsontext.parse(receipt), sha256(receipt).hexdigest(), subject)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvidenceError(
            f"the receipt of {subject.image} cannot be used: {error!r}",
            hint=f"doit boot image={subject.image} writes it anew",
        ) from error


def _predicate(found: Mapping[str, Any], digest: str, subject: Subject) -> dict[str, Json]:
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema {found['schema']}, not {SCHEMA}")
    booted = {subject.kernel_file: found["kernel"], ROOTFS_FILE: found["rootfs"]}
    for file, expected in subject.files.items():
        if booted[file]["digest"] != f"sha256:{expected}":
            raise EvidenceError(
                f"the receipt of {subject.image} is about another {file}: {booted[file]['digest']}",
                hint=f"doit boot image={subject.image} boots the image as it is now",
            )
    ok = found["ok"] is True
    tests = {str(check["title"]): check["ok"] is True for check in found["checks"]}
    if found["health"]:
        tests["health"] = found["health"]["status"] == "healthy"
    tests["boot"] = ok  # all of it, to the end that was expected
    vmm = found["vmm"]
    configuration: list[Json] = [
        {"name": file, "digest": {"sha256": value}} for file, value in subject.files.items()
    ]
    configuration.append(
        {
            "name": str(vmm["name"]),
            "annotations": {"version": str(vmm["version"]), "kvm": str(vmm["kvm"])},
        }
    )
    if found["instance"] is not None:  # the names of what it set, never the values
        named: list[Json] = [str(name) for name in found["instance"]]
        configuration.append({"name": "instance", "annotations": {"set": named}})
    configuration.append({"name": RECEIPT, "digest": {"sha256": digest}})
    return {
        "result": PASSED if ok else FAILED,
        "configuration": configuration,
        "passedTests": sorted(name for name, passed in tests.items() if passed),
        "failedTests": sorted(name for name, passed in tests.items() if not passed),
        "timingsMs": {str(name): int(ms) for name, ms in found["timings_ms"].items()},
    }
