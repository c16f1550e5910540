"""What evidence is about: one image for one architecture, as the store has it, and its kernel."""

from __future__ import annotations

import json
from typing import NamedTuple

from fcbuild import kernelfile
from fcbuild.errors import EvidenceError
from fcbuild.recipes import ROOTFS_FILE
from fcbuild.series import KERNEL_FILE
from fcbuild.store import Artifact

_KERNEL_ABOUT = "kernel.json"  # build/kernel.py writes it; a kernel that was given has none


class Source(NamedTuple):
    """What a kernel was built from: an archive, and patches by file name."""

    title: str
    sha256: str
    patches: tuple[str, ...]


class Kernel(NamedTuple):
    """What is known of a kernel. release: what uname -r says. config_sha256: of its .config's
    bytes. source: None for a kernel that somebody else built."""

    release: str | None
    config_sha256: str | None
    source: Source | None


class Subject(NamedTuple):
    """An image that is published. kernel, rootfs: its objects."""

    image: str
    arch: str
    kernel: Artifact
    rootfs: Artifact

    @property
    def kernel_file(self) -> str:
        return KERNEL_FILE[self.arch]

    @property
    def files(self) -> dict[str, str]:
        """The sha256 of the two files that boot, by name."""
        return {
            self.kernel_file: self.kernel.digests[self.kernel_file],
            ROOTFS_FILE: self.rootfs.digests[ROOTFS_FILE],
        }


def kernel(subject: Subject) -> Kernel:
    """Return what is known of the subject's kernel: what its build wrote down, or else what the
    file says of itself. Raises EvidenceError, BuildError."""
    artifact = subject.kernel
    if _KERNEL_ABOUT not in artifact.digests:
        found = kernelfile.inspect(artifact.file(subject.kernel_file))
        return Kernel(found.version, found.config_sha256, None)
    path = artifact.file(_KERNEL_ABOUT)
    try:
        about = json.loads(path.read_bytes())
        source = about["source"]
        return Kernel(
            release=str(about["release"]),
            config_sha256=str(about["config_sha256"]),
            source=Source(str(source["title"]), str(source["sha256"]), tuple(about["patches"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path} cannot be used: {error}") from error
