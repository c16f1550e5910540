"""Can this machine's KVM run an ordinary guest?"""

from __future__ import annotations

import os
from pathlib import Path

DEVICE = Path("/dev/kvm")
_CPUINFO = Path("/proc/cpuinfo")


def trouble(device: Path = DEVICE, cpuinfo: Path = _CPUINFO) -> str | None:
    """Return why KVM cannot be used here, or None when it can.

    A device that opens is not enough on x86: where the processor shows neither vmx nor svm, it is
    a paravirtual KVM in which an unmodified kernel does not get through its boot.
    """
    if not device.exists():
        return f"no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} is not yours to open (group kvm)"
    if os.uname().machine != "x86_64":
        return None
    for line in cpuinfo.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("flags"):
            if {"vmx", "svm"} & set(line.partition(":")[2].split()):
                return None
            return f"{device} is there, but the processor has neither vmx nor svm"
    return f"{device} is there, but {cpuinfo} lists no processor flags"
