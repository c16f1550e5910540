"""The kernel's command line: what is on it, what may be added, and how long it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild import kernel_command_line
from fcbuild.errors import VmmError
from fcbuild.kernel_command_line import (
    FIRECRACKER_ARM,
    FIRECRACKER_X86,
    PLATFORMS,
    QEMU_VIRT,
    problem,
    split,
)

CONTRACT = Path(kernel_command_line.__file__).with_name("guest") / "BOOT_CONTRACT.md"


def test_the_boot_contract_has_each_word_and_its_reason() -> None:
    section = CONTRACT.read_text().partition("## 5.")[2].partition("### 5.1")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{word.text}` | {word.why} |" for word in FIRECRACKER_X86.words]
    loud = " ".join(word.text for word in FIRECRACKER_X86.verbose)
    text = " ".join(section.split())
    assert f"`{loud}`" in text
    arm = " ".join(word.text for word in FIRECRACKER_ARM.words)
    assert f"`{arm}`" in text and f"`{FIRECRACKER_ARM.appended[0].text}`" in text
    virt = " ".join(word.text for word in QEMU_VIRT.words)
    assert f"`{virt}`" in text
    assert f"`{' '.join(word.text for word in QEMU_VIRT.verbose)}`" in text
    assert "`root=/dev/vda`" in section and "2,047 bytes" in section


def test_words_are_added_behind_ours() -> None:
    line = FIRECRACKER_X86.line(["a", 'b="c d"'], devices=1)
    assert line.endswith(' init=/.fcbuild/init a b="c d"')
    assert line.startswith("reboot=k panic=-1 quiet ")


def test_what_the_vmm_appends_counts() -> None:
    """As Firecracker 1.12.1 and later do it, each at its longest."""
    ours = " ".join(word.text for word in FIRECRACKER_X86.words)
    theirs = " pci=off root=/dev/vda rw" + 3 * " virtio_mmio.device=4K@0xd0000000:23"
    room = 2047 - len(ours) - len(theirs) - 1
    assert FIRECRACKER_X86.line(["x" * room], devices=3)
    with pytest.raises(VmmError, match="has 2048 bytes, 133 of them the VMM's own: 2047") as caught:
        FIRECRACKER_X86.line(["x" * (room + 1)], devices=3)
    assert "kernel_arguments in image.toml or in the instance" in str(caught.value.hint)


def test_a_loud_kernel_is_as_the_quiet_one_but_for_its_messages() -> None:
    quiet = FIRECRACKER_X86.line([], devices=0).split()
    loud = FIRECRACKER_X86.loud().line([], devices=0).split()
    assert set(quiet) - set(loud) == {"quiet"}
    assert set(loud) - set(quiet) == {word.text for word in FIRECRACKER_X86.verbose}


def test_no_word_is_there_twice() -> None:
    for platform in PLATFORMS:
        names = [word.name for word in (*platform.words, *platform.verbose)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "word",
    ["a", "debug", "ip=none", "hugepages=8", 'x="a b"', '"x=a b"', "sysctl.vm.swappiness=0", "-"],
)
def test_other_words_may_be_added(word: str) -> None:
    assert problem(word, instance=False) is problem(word, instance=True) is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("init=/bin/sh", "the launcher says init=/.fcbuild/init: PID 1 of the boot contract"),
        ("reboot=t", "the launcher says reboot=k: the keyboard controller's reset"),
        ("panic=1", "the launcher says panic=-1: a panic restarts the machine"),
        ("console=hvc0", "the launcher says console=ttyS0: "),
        ("quiet", "the launcher says quiet: "),
        ("clocksource=tsc", "the launcher says clocksource=kvm-clock: "),
        ("root=/dev/vdb", "the VMM says that: the root drive is the first one"),
        ("ro", "the VMM says that: or rw: whether"),
        ("rw", "not here: whether the root is written to is [rootfs] in image.toml"),
        ("pci=conf1", "the launcher says pci=off: "),
        ("virtio_mmio.device=4K@0xd0000000:5", "the VMM says that: "),
        ("virtio-mmio.device=4K@0xd0000000:5", "the VMM says that: "),
        ("rdinit=/init", "not here: there is no initramfs"),
        ("i8042.nopnp", "not here: with ACPI it keeps Ctrl-Alt-Del"),
        ("--", "not here: what follows it is for PID 1"),
        ('"init=/bin/sh"', "the launcher says init="),
        ('init="/bin/sh"', "the launcher says init="),
        ("", "a word of printable ASCII"),
        ("a\nb", "a word of printable ASCII"),
        ("ü", "a word of printable ASCII"),
        (" ", "expected one word"),
        ("a ", "expected one word"),
        ("a init=/bin/sh", "expected one word"),
        ('a="b', "expected one word"),
        ('a="b c" d', "expected one word"),
        ("fcbuild.config=/dev/vdc", ""),
        ("fcbuild.overlay=/dev/vdc", ""),
    ],
)
def test_a_word_that_would_undo_ours_is_refused(word: str, said: str) -> None:
    for instance in (False, True):
        assert said in (problem(word, instance=instance) or "nothing")


def test_values_of_one_vm_are_not_the_images() -> None:
    assert problem("fcbuild.mtu=1400", instance=True) is None
    assert "values of one VM" in str(problem("fcbuild.mtu=1400", instance=False))
    assert "names the drives" in str(problem("fcbuild.config=/dev/vdc", instance=True))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  a   b ", ["a", "b"]),
        ('a="b c" "d e=f"', ['a="b c"', '"d e=f"']),
        ('a"b c"d e', ['a"b c"d', "e"]),
        ('a "b c', None),
    ],
)
def test_a_line_is_cut_as_the_kernel_does(line: str, words: list[str] | None) -> None:
    assert split(line) == words
