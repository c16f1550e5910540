"""Whose a container is: a label that names one process, and whether that process is gone.

    BOOT_ID pid:[NAMESPACE] PID BEGAN      the kernel's boot, the PID namespace, the process

A process that is killed leaves its containers to the engine; the label lets a later run remove them
without touching those of a run that is alive.
"""

from __future__ import annotations

import os
from pathlib import Path

# For a process that cannot be seen from here, on another machine or in another container: no
# container of ours runs that long.
_SURELY_S = 24 * 3600.0


def ours() -> str:
    """Return the label of this process."""
    return _label(os.getpid()) or ""


def gone(label: str, *, age_s: float) -> bool:
    """Return whether a container of this label and age has lost its process."""
    machine, _, rest = label.partition(" pid:[")
    namespace, _, process = rest.partition("] ")
    pid = process.partition(" ")[0]
    if not pid.isdigit():
        return False  # not one of ours
    if f"{machine} pid:[{namespace}]" != _machine():
        return age_s > _SURELY_S
    return _label(int(pid)) != label


def _label(pid: int) -> str | None:
    try:
        # Field 22 of stat is when it began; the name before that may hold spaces. (proc(5))
        began = (
            Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
        )
    except OSError:
        return None
    return f"{_machine()} {pid} {began}"


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
