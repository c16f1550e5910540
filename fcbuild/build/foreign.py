"""Can this machine run programs of another architecture, as RUN steps and package scripts do?

The kernel hands them to an emulator (binfmt_misc), QEMU's. That has to be registered with the flag
F, so that it is found in containers too, where its file is not.
"""

from __future__ import annotations

import os
from pathlib import Path

from fcbuild.errors import ToolMissing

# https://docs.kernel.org/admin-guide/binfmt-misc.html
_REGISTERED = Path("/proc/sys/fs/binfmt_misc")
_HINT = (
    "apt-get install qemu-user-static arch-test, and where no systemd does it: "
    "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; "
    "update-binfmts --enable qemu-{arch} (package binfmt-support); ./doitw does all of that"
)


def trouble(arch: str, registered: Path = _REGISTERED) -> str | None:
    """Return why programs of this architecture cannot be run here, or None when they can."""
    if arch == os.uname().machine:
        return None
    try:
        text = (registered / f"qemu-{arch}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"no emulator for {arch} is registered with the kernel"
    lines = text.splitlines()
    if "enabled" not in lines:
        return f"the emulator for {arch} is switched off in {registered}"
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
    if "F" not in flags:
        return f"the emulator for {arch} is registered without the flag F, so no container has it"
    return None


def insist(arch: str) -> None:
    """Raise ToolMissing unless programs of this architecture can be run here."""
    if why := trouble(arch):
        raise ToolMissing(
            f"an image for {arch} cannot be built here: {why}", hint=_HINT.format(arch=arch)
        )
