"""What a kernel has to have for the boot contract, and how what it lacks is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcbuild import kernelneeds
from fcbuild.errors import BuildError
from fcbuild.kernelfile import KernelFile
from fcbuild.kernelneeds import NEEDS, check, missing

CONTRACT = Path(kernelneeds.__file__).with_name("guest") / "BOOT_CONTRACT.md"
ALL = {name: "y" for need in NEEDS for way in need.ways for name in way}


def lines(arch: str = "x86_64", uses: bool = True, **config: str) -> set[str]:
    """What a kernel lacks that has all but this. uses: whether the image has everything."""
    found = missing({**ALL, **config}, arch=arch, overlay=uses, network=uses)
    return {item.options for item in found}


def test_the_boot_contract_has_each_need() -> None:
    section = CONTRACT.read_text().partition("### 5.1")[2].partition("## 6.")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    marks = {"": "", "x86_64": "x86-64", "aarch64": "64-bit ARM", "overlay": "an overlay"}
    marks["network"] = "a network"
    assert rows == [
        f"| `{need}` | {marks[need.when]} | {'yes' if need.needed else ''} | {need.why} |"
        for need in NEEDS
    ]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_kernel_that_has_everything_lacks_nothing(arch: str) -> None:
    assert lines(arch=arch) == set()


def test_a_module_is_not_enough_and_is_told() -> None:
    assert lines(EXT4_FS="m") == {"CONFIG_EXT4_FS (a module)"}
    assert lines(VSOCKETS="n", VIRTIO_VSOCKETS="m") == {
        "CONFIG_VSOCKETS and CONFIG_VIRTIO_VSOCKETS (a module)"
    }


def test_one_of_two_ways_is_enough() -> None:
    assert lines(PCI="n") == set()
    assert lines(VIRTIO_MMIO_CMDLINE_DEVICES="n") == set()
    assert lines(PCI="n", VIRTIO_MMIO_CMDLINE_DEVICES="n") == {
        "CONFIG_PCI, or CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES"
    }


def test_what_an_image_does_not_use_is_not_asked_for() -> None:
    assert lines(uses=False, OVERLAY_FS="n", VIRTIO_NET="n") == set()
    assert lines(OVERLAY_FS="n", VIRTIO_NET="n") == {"CONFIG_OVERLAY_FS", "CONFIG_VIRTIO_NET"}


def test_an_architecture_is_not_asked_for_what_the_other_needs() -> None:
    assert lines(arch="aarch64", ACPI="n", VIRTIO_MMIO_CMDLINE_DEVICES="n", VSOCKETS="n") == set()
    assert lines(VIRTIO_CONSOLE="n") == set()


def kernel(**config: str) -> KernelFile:
    return KernelFile("x86_64", None, {**ALL, **config}, "d" * 64)


def test_what_a_boot_needs_is_an_error_with_all_of_it() -> None:
    with pytest.raises(BuildError) as caught:
        check(kernel(EXT4_FS="n", TMPFS="n", IPV6="n"), what="mine", overlay=False, network=True)
    assert caught.value.message.splitlines() == [
        "mine lacks what a boot needs, built in:",
        "  CONFIG_EXT4_FS: the root file system",
        "  CONFIG_TMPFS: /run, /dev/shm, and what is writable on a read-only root",
    ]


def test_what_would_be_better_is_returned() -> None:
    (found,) = check(kernel(IPV6="n", NETDEVICES="y"), what="mine", overlay=False, network=True)
    assert str(found) == "CONFIG_IPV6: IPv6 addresses of eth0"


def test_of_a_kernel_without_its_configuration_nothing_is_known() -> None:
    bare = KernelFile("x86_64", "6.12", None, None)
    assert check(bare, what="mine", overlay=True, network=True) == []
