"""A checkout's links to files of the store's objects: artifacts/images/ and artifacts/kernels/."""

from __future__ import annotations

import os
from pathlib import Path

from fcbuild.store.manifest import Artifact


def link(artifact: Artifact, name: str, at: Path) -> None:
    """Point the link `at` to a file of an artifact, replacing an older link in one step."""
    at.parent.mkdir(parents=True, exist_ok=True)
    temporary = at.with_name(f".{at.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(artifact.file(name))
    temporary.replace(at)


def links_to(at: Path, artifact: Artifact, name: str) -> bool:
    """Return whether the link `at` leads to this file of this artifact."""
    try:
        return at.readlink() == artifact.file(name)
    except OSError:
        return False


def links_of(artifacts: Path) -> list[Path]:
    """Return the links that a checkout's artifacts/ has."""
    found = [*(artifacts / "images").glob("*.ext4"), *(artifacts / "kernels").rglob("*")]
    return sorted(path for path in found if path.is_symlink())
