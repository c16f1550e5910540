"""The guest kernel's command line: every word of it, and why it is there. Pure.

    ours  fcbuild.config= fcbuild.overlay=  image.toml's  the instance's  |  what the VMM appends

Section 5 of guest/BOOT_CONTRACT.md has it for readers. The kernel mostly takes the last word of a
name, so one that comes later could undo what ours stand for; image.toml and instance documents may
add words, but none of a name that is here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from fcbuild.errors import VmmError
from fcbuild.tables import Table

# What both documents call the words they add.
KEY = "kernel_arguments"

# Keys behind `fcbuild.` that the launcher writes: its drives.
_DRIVES = frozenset({"config", "overlay"})

_PRINTABLE = re.compile(r"[ -~]+")  # a VMM takes no other characters


class Word(NamedTuple):
    """A word of the command line, and why it has to be as it is."""

    text: str
    why: str

    @property
    def name(self) -> str:
        return _name(self.text)


class Platform(NamedTuple):
    """The command line of one machine type.

    words: ours, in order. quiet: which of them keeps the kernel from telling how its boot goes, and
    verbose: what stands in its place when that is wanted. appended: what the VMM puts behind all
    others, and device: besides that for each virtio device, both at their longest; None for
    nothing. limit: bytes of the whole line, with a NUL at its end.
    """

    words: tuple[Word, ...]
    quiet: Word
    verbose: tuple[Word, ...]
    appended: tuple[Word, ...]
    device: Word | None
    limit: int

    def loud(self) -> Platform:
        """Return the same machine with a kernel that tells everything."""
        return self._replace(words=(*(w for w in self.words if w != self.quiet), *self.verbose))

    def line(self, more: Sequence[str], *, devices: int) -> str:
        """Return what the VMM is to be given: our words, and `more`.

        devices: how many virtio devices there are. Raises VmmError when the kernel would not get
        all of it: that would be seen only in what does not work.
        """
        line = " ".join((*(word.text for word in self.words), *more))
        added = [*self.appended, *([self.device] * devices if self.device else [])]
        appended = sum(1 + len(word.text) for word in added)
        if (size := len(line.encode()) + appended) > self.limit - 1:
            raise VmmError(
                f"the kernel's command line has {size} bytes, {appended} of them the VMM's own:"
                f" {self.limit - 1} are allowed",
                hint=f"shorten {KEY} in image.toml or in the instance; the config drive has room",
            )
        return line


_PANIC = Word("panic=-1", "a panic restarts the machine, and so ends it, at once and not never")
_NOMODULE = Word("nomodule", "all of a guest's kernel is built in, nothing is to be loaded later")
_INIT = Word("init=/.fcbuild/init", "PID 1 of the boot contract is what makes an image a machine")
_QUIET = Word(
    "quiet",
    "each byte of a message costs an exit to the VMM; one boot that fails is repeated without it",
)

# Firecracker on x86-64. What it appends: src/vmm/src/builder.rs of v1.12.1 and v1.16.1. The limit:
# CMDLINE_MAX_SIZE there, which is COMMAND_LINE_SIZE of the kernel, and counts the NUL.
FIRECRACKER_X86 = Platform(
    words=(
        Word("reboot=k", "the keyboard controller's reset is the restart that ends Firecracker"),
        _PANIC,
        _QUIET,
        _NOMODULE,
        Word("console=ttyS0", "the one serial port; a panic and PID 1's last words are read there"),
        # Firecracker's controller has a keyboard, which cannot be asked, for Ctrl-Alt-Del.
        Word("i8042.noaux", "there is no mouse: probing for it takes up to half a second"),
        Word("i8042.nomux", "there is no multiplexer, and probing for it takes as long"),
        Word("i8042.dumbkbd", "the keyboard only sends: it would be waited for to be set up"),
        Word(
            "cryptomgr.notests",
            "a kernel with crypto self-tests runs them in each boot, for the same code each time",
        ),
        Word(
            "clocksource=kvm-clock",
            "with an invariant TSC the kernel would prefer that, and after a restored snapshot"
            " only kvm-clock follows the host's time",
        ),
        Word("pci=off", "there is no bus to look for devices on"),
        _INIT,
    ),
    quiet=_QUIET,
    verbose=(
        Word("ignore_loglevel", "every message reaches the console, whatever its level"),
        Word(
            "earlycon=uart8250,io,0x3f8",
            "messages from before the console's driver, which a kernel may not live to see",
        ),
    ),
    appended=(
        Word("pci=off", "Firecracker 1.13 and later say so themselves"),
        Word("root=/dev/vda", "the root drive is the first one"),
        Word("ro", "or rw: whether the root is written to is [rootfs] in image.toml"),
    ),
    device=Word(
        "virtio_mmio.device=4K@0xd0000000:23",
        "for kernels that find devices by the command line; IRQs are 5 to 23",
    ),
    limit=2048,
)

# Firecracker on 64-bit ARM, where PSCI restarts the machine and a device tree describes devices.
# What it appends, and where it has the serial port: as above, and src/vmm/src/device_manager/.
FIRECRACKER_ARM = Platform(
    words=(
        _PANIC,
        _QUIET,
        _NOMODULE,
        Word("console=ttyS0", "Firecracker adds the one serial port when it reads this"),
        _INIT,
    ),
    quiet=_QUIET,
    verbose=(Word("ignore_loglevel", "every message reaches the console, whatever its level"),),
    appended=(
        Word("earlycon=uart,mmio,0x40002000", "Firecracker says where the serial port is"),
        Word("pci=off", "Firecracker 1.13 and later say so themselves"),
        Word("root=/dev/vda", "the root drive is the first one"),
        Word("ro", "or rw: whether the root is written to is [rootfs] in image.toml"),
    ),
    device=None,
    limit=2048,
)

# QEMU's `virt` machine, which appends nothing. The limit is the kernel's own for arm64.
QEMU_VIRT = Platform(
    words=(
        _PANIC,
        _QUIET,
        _NOMODULE,
        Word(
            "console=ttyAMA0", "the one serial port; a panic and PID 1's last words are read there"
        ),
        Word("root=/dev/vda", "the root drive is the first one"),
        Word(
            "FCBUILD_LINK=/dev/vport0p1",
            "the link, for want of vsock: the kernel hands this on in PID 1's environment",
        ),
        _INIT,
    ),
    quiet=_QUIET,
    verbose=(
        Word("ignore_loglevel", "every message reaches the console, whatever its level"),
        Word("earlycon", "messages from before the console's driver; the device tree says where"),
    ),
    appended=(),
    device=None,
    limit=2048,
)

FIRECRACKER = {"x86_64": FIRECRACKER_X86, "aarch64": FIRECRACKER_ARM}
PLATFORMS = (*FIRECRACKER.values(), QEMU_VIRT)

# Besides the names of those: what would undo one of them under another name.
_ALSO = (
    Word("rw", "whether the root is written to is [rootfs] in image.toml"),
    Word("rdinit", "there is no initramfs, and PID 1 is that of the boot contract"),
    Word("i8042.nopnp", "with ACPI it keeps Ctrl-Alt-Del, which means stop, from the guest"),
    Word("--", "what follows it is for PID 1, which takes no arguments; the VMM appends before it"),
)


def read(table: Table, *, instance: bool) -> tuple[str, ...]:
    """Read the words that a document adds. instance: whether it is one of an instance."""
    words = table.strings(KEY)
    for word in words:
        if trouble := problem(word, instance=instance):
            table.problems.append(f"{table.where}: {table.prefix}{KEY}: {word!r}: {trouble}")
    return words


def problem(word: str, *, instance: bool) -> str | None:
    """Return why a document cannot add a word to the command line, or None."""
    if not _PRINTABLE.fullmatch(word):
        return "expected a word of printable ASCII"
    if split(word) != [word]:
        return 'expected one word; a value with spaces is written NAME="a b"'
    name = _name(word)
    if name.startswith("fcbuild."):
        if not instance:
            return "values of one VM; image.toml has keys of its own for what all are to have"
        if name.removeprefix("fcbuild.") in _DRIVES:
            return "the launcher names the drives itself"
        return None
    for platform in PLATFORMS:
        for ours in platform.words:
            if ours.name == name:
                return f"the launcher says {ours.text}: {ours.why}"
        for theirs in (*platform.appended, *([platform.device] if platform.device else [])):
            if theirs.name == name:
                return f"the VMM says that: {theirs.why}"
    return next((f"not here: {also.why}" for also in _ALSO if also.name == name), None)


def split(line: str) -> list[str] | None:
    """Return the words of a line, as the kernel's next_arg() cuts them (lib/cmdline.c): a double
    quote holds spaces together. None for a quote without its end, which would take in all that
    follows."""
    words, word, quoted = [], "", False
    for character in line:
        quoted ^= character == '"'
        if character == " " and not quoted:
            words += [word] if word else []
            word = ""
        else:
            word += character
    return None if quoted else words + ([word] if word else [])


def _name(word: str) -> str:
    """Return a word's name as the kernel compares them: without quotes, and `-` the same as `_`."""
    name = word.replace('"', "").partition("=")[0]
    return name if name == "--" else name.replace("-", "_")
