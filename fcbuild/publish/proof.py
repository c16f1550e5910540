"""The receipt that an image has to have before it is published: a boot of these very bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcbuild.errors import PublishRefused
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.series import KERNEL_FILE
from fcbuild.spec import ImageSpec
from fcbuild.store import Artifact

_MAX_BYTES = 64 << 20


def check(path: Path, spec: ImageSpec, kernel: Artifact, rootfs: Artifact) -> None:
    """Raise PublishRefused unless the receipt says that this kernel and this root filesystem booted
    and held what the image promises."""
    hint = f"doit boot image={spec.name} writes it; unverified=1 publishes without, and marks it"
    try:
        with path.open("rb") as file:
            receipt = json.loads(file.read(_MAX_BYTES))
        ok, booted = receipt["ok"] is True, {kind: receipt[kind] for kind in ("kernel", "rootfs")}
        expected = {
            "kernel": _made(kernel, KERNEL_FILE[spec.arch]),
            "rootfs": _made(rootfs, ROOTFS_FILE),
        }
        differ = [kind for kind in expected if not _same(booted[kind], expected[kind])]
    except FileNotFoundError:
        raise PublishRefused(f"{spec.name} has no receipt: it was not booted", hint=hint) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise PublishRefused(f"{path} cannot be used: {error!r}", hint=hint) from error
    if differ:
        raise PublishRefused(
            f"{spec.name}: the receipt is of another {' and '.join(differ)} than what is built",
            hint=hint,
        )
    if not ok:
        why = str(receipt.get("error")).partition("\n")[0]
        raise PublishRefused(
            f"{spec.name}: the last boot failed: {why}",
            hint=hint,
        )


def _made(artifact: Artifact, file: str) -> Mapping[str, str]:
    return {
        "fingerprint": artifact.fingerprint,
        "digest": f"sha256:{artifact.digests[file]}",
    }


def _same(booted: Any, expected: Mapping[str, str]) -> bool:
    return all(booted[key] == value for key, value in expected.items())
