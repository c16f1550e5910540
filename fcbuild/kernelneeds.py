"""The kernel options that the boot contract stands on, each with what it is for. Pure.

Section 5.1 of guest/BOOT_CONTRACT.md shows them to readers. Our own kernels have them by their
fragments; this is for kernels that others made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fcbuild.errors import BuildError
from fcbuild.kernelfile import KernelFile

# When an option counts: always, on one architecture, or for images that have something.
When = Literal["", "x86_64", "aarch64", "overlay", "network"]


@dataclass(frozen=True)
class Need:
    """Options that have to be built in, all of one of the ways. needed: whether the boot fails, or
    breaks a promise of the contract, without; else something works less well."""

    ways: tuple[tuple[str, ...], ...]
    why: str
    needed: bool = True
    when: When = ""

    def __str__(self) -> str:
        return ", or ".join(" and ".join(way) for way in self.ways)


def _all(options: str, why: str, when: When = "") -> Need:
    return Need((tuple(options.split()),), why, when=when)


def _better(options: str, why: str, when: When = "") -> Need:
    return Need((tuple(options.split()),), why, needed=False, when=when)


NEEDS = (
    _all("BINFMT_ELF", "PID 1 and what it starts are ELF programs"),
    _all("VIRTIO_MMIO", "every device is a virtio device on MMIO"),
    Need(
        (("ACPI", "PCI"), ("VIRTIO_MMIO_CMDLINE_DEVICES",)),
        "how the devices are found; ACPI of mainline kernels does not come up without PCI",
        when="x86_64",
    ),
    _all("VIRTIO_BLK", "the root drive, the config drive"),
    _all("EXT4_FS", "the root file system"),
    _all("DEVTMPFS", "/dev"),
    _all("PROC_FS", "/proc, where PID 1 reads the command line too"),
    _all("SYSFS", "/sys"),
    _all("TMPFS", "/run, /dev/shm, and what is writable on a read-only root"),
    _all("MULTIUSER", "the image's USER"),
    _all("SIGNALFD", "how PID 1 waits for the program's end"),
    _all("NET UNIX INET", "lo, the TCP forward, and the readiness socket of an image's own init"),
    _all("VSOCKETS VIRTIO_VSOCKETS", "the link to the host", "x86_64"),
    _all("VIRTIO_CONSOLE", "the link to the host, a virtio-serial port", "aarch64"),
    _all(
        "OVERLAY_FS", "a root that is an overlay, and `writable` over what the image has", "overlay"
    ),
    _all("NETDEVICES VIRTIO_NET", "eth0", "network"),
    _better("KVM_GUEST", "kvm-clock: the wall clock, and no calibration at boot", "x86_64"),
    _better("PRINTK TTY", "what the kernel says when a boot fails"),
    _better("SERIAL_8250 SERIAL_8250_CONSOLE", "the console", "x86_64"),
    _better("SERIAL_AMBA_PL011 SERIAL_AMBA_PL011_CONSOLE", "the console", "aarch64"),
    _better("SERIO_I8042 KEYBOARD_ATKBD VT", "Ctrl-Alt-Del as a way to say stop", "x86_64"),
    _better("HW_RANDOM_VIRTIO", "randomness from the host"),
    _better("UNIX98_PTYS", "/dev/pts"),
    _better("POSIX_MQUEUE", "/dev/mqueue"),
    _better("CGROUPS MEMCG CGROUP_PIDS", "/sys/fs/cgroup, for systemd and container engines"),
    _better("BINFMT_SCRIPT", "programs that start with #!"),
    _better("FUTEX EPOLL EVENTFD TIMERFD INOTIFY_USER FILE_LOCKING", "what servers are made of"),
    _better("TMPFS_XATTR", "directories of an overlay in RAM can be renamed", "overlay"),
    _better("IPV6", "IPv6 addresses of eth0", "network"),
)


@dataclass(frozen=True)
class Missing:
    """A need that a kernel does not meet. options: what of it, in words."""

    options: str
    need: Need

    def __str__(self) -> str:
        return f"{self.options}: {self.need.why}"


def missing(config: Mapping[str, str], *, arch: str, overlay: bool, network: bool) -> list[Missing]:
    """Return what a configuration lacks. overlay, network: whether the image has them."""
    counts = {"", arch, *(["overlay"] if overlay else []), *(["network"] if network else [])}
    found = []
    for need in NEEDS:
        if need.when not in counts:
            continue
        lacking = [[name for name in way if config.get(name) != "y"] for way in need.ways]
        if all(lacking):
            ways = (" and ".join(_named(name, config) for name in way) for way in lacking)
            found.append(Missing(", or ".join(ways), need))
    return found


def check(kernel: KernelFile, *, what: str, overlay: bool, network: bool) -> list[Missing]:
    """Return what a kernel lacks that would be better to have; nothing is known of one that does
    not carry its configuration. Raises BuildError for what it cannot do without."""
    if kernel.config is None:
        return []
    found = missing(kernel.config, arch=kernel.arch, overlay=overlay, network=network)
    if lines := [f"  {item}" for item in found if item.need.needed]:
        raise BuildError(
            "\n".join([f"{what} lacks what a boot needs, built in:", *lines]),
            hint="section 5.1 of fcbuild/guest/BOOT_CONTRACT.md has all that is needed",
        )
    return found


def _named(option: str, config: Mapping[str, str]) -> str:
    return f"CONFIG_{option}" + (" (a module)" if config.get(option) == "m" else "")
