"""When each object was last used, and which of its bytes were verified then: notes in uses/.

They can be deleted. Without them an object is as old as its directory, and is read once more. A
store that cannot be written has none.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from fcbuild.store import layout, manifest
from fcbuild.store.manifest import Artifact


class Uses:
    """The notes of a store. An object is named by its directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def at(self, directory: Path) -> Path:
        """Return where the note of an object is."""
        return self._root / "uses" / f"{directory.parent.name}-{directory.name}"

    def time(self, directory: Path) -> float:
        """Return when an object was last used, in seconds since 1970."""
        for path in (self.at(directory), directory):
            with contextlib.suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    def now(self, directory: Path) -> None:
        """Note that an object is used."""
        with contextlib.suppress(OSError):
            try:
                os.utime(self.at(directory))
            except FileNotFoundError:
                layout.write(self.at(directory), b"")

    def verified(self, artifact: Artifact) -> bool:
        """Return whether the payload was verified, and its files are the same since."""
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads(self.at(artifact.directory).read_bytes()) == _marks(artifact))
        return False

    def now_verified(self, artifact: Artifact) -> None:
        """Note that an object is used and that every byte of its payload is as it was built."""
        with contextlib.suppress(OSError):
            layout.write(self.at(artifact.directory), json.dumps(_marks(artifact)).encode())

    def forget(self, directory: Path) -> None:
        self.at(directory).unlink(missing_ok=True)


def _marks(artifact: Artifact) -> dict[str, list[int]]:
    return {name: list(mark) for name, mark in manifest.marks(artifact).items()}
