"""The host's end of a microVM's network interface."""

from __future__ import annotations

from pathlib import Path

from fcbuild.errors import ToolMissing

# In the emulated KVM host, whose agent makes it; nothing is behind it there.
EMULATED = "fcbuild0"

_INTERFACES = Path("/sys/class/net")
_IFF_TAP = 0x0002  # linux/if_tun.h


def check(name: str, interfaces: Path = _INTERFACES) -> None:
    """Raise ToolMissing unless this machine has a TAP device of this name."""
    try:
        is_tap = int((interfaces / name / "tun_flags").read_text(), 16) & _IFF_TAP
    except (OSError, ValueError):
        is_tap = 0
    if not is_tap:
        raise ToolMissing(
            f"{name} is no TAP device of this machine",
            hint=f"sudo ip tuntap add dev {name} mode tap user $USER && sudo ip link set {name} up",
        )
