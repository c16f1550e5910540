"""What a microVM is made of, and the kernel's command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import VmmError
from fcbuild.kernel_command_line import FIRECRACKER_X86
from fcbuild.vmm.config import MicroVm, VmConfig, for_image

Golden = Callable[[str, Any], None]

VSOCK = Path("/run/v.sock")


def microvm(**more: Any) -> MicroVm:
    return MicroVm(
        kernel=Path("/k/vmlinux"), rootfs=Path("/r/rootfs.ext4"), vcpus=2, memory_mib=128, **more
    )


def bodies(machine: VmConfig) -> Any:
    return json.loads(json.dumps(list(machine.calls())))


def test_golden_api_bodies(golden: Golden) -> None:
    golden("api-calls", bodies(for_image(microvm(), vsock=VSOCK)))


def test_golden_api_bodies_of_an_instance(golden: Golden) -> None:
    vm = microvm(
        shared=True,
        config=Path("/run/config.drive"),
        overlay=Path("/run/overlay.ext4"),
        tap="tap0",
        mac="02:00:00:00:00:02",
        metadata={"token": "t", "tags": [1, {"a": "b"}]},
        arguments=("fcbuild.mtu=1400", 'fcbuild.arg="a b"'),
    )
    golden("api-calls-instance", bodies(for_image(vm, vsock=VSOCK)))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), []),
        (("config",), ["fcbuild.config=/dev/vdb"]),
        (("overlay",), ["fcbuild.overlay=/dev/vdb"]),
        (("config", "overlay"), ["fcbuild.config=/dev/vdb", "fcbuild.overlay=/dev/vdc"]),
    ],
)
def test_the_command_line_names_the_drives(files: tuple[str, ...], words: list[str]) -> None:
    vm = microvm(shared=True, **{name: Path("/run") / name for name in files})
    line = for_image(vm, vsock=VSOCK).boot.boot_args
    assert line.split() == [*(word.text for word in FIRECRACKER_X86.words), *words]
    assert [(drive.drive_id, drive.is_read_only) for drive in vm.drives] == [
        ("rootfs", True),
        *((name, name == "config") for name in files),
    ]


def test_a_root_of_ones_own_is_written_to() -> None:
    (root,) = microvm().drives
    assert root.is_root_device and not root.is_read_only


def test_each_device_takes_its_room_on_the_command_line() -> None:
    def longest(**more: Any) -> int:
        """How many bytes there are for arguments."""
        for length in range(FIRECRACKER_X86.limit, 0, -1):
            with suppress(VmmError):
                for_image(microvm(arguments=("x" * length,), **more), vsock=VSOCK)
                return length
        raise AssertionError

    device = len(" virtio_mmio.device=4K@0xd0000000:23")
    assert longest() - longest(tap="tap0") == device
    config = len(" fcbuild.config=/dev/vdb")
    assert longest() - longest(config=Path("/run/config")) == device + config


def test_a_verbose_kernel_is_told_so() -> None:
    line = for_image(microvm(verbose=True), vsock=VSOCK).boot.boot_args.split()
    assert "quiet" not in line and "ignore_loglevel" in line


def test_a_metadata_service_needs_an_interface() -> None:
    paths = [path for path, _ in for_image(microvm(metadata={"a": 1}), vsock=VSOCK).calls()]
    assert not [path for path in paths if "mmds" in path]


def test_an_empty_metadata_service_is_one() -> None:
    calls = dict(for_image(microvm(tap="tap0", metadata={}), vsock=VSOCK).calls())
    assert calls["/mmds"] == {}
    assert calls["/mmds/config"]["network_interfaces"] == ("eth0",)


def test_the_metadata_is_in_no_repr() -> None:
    vm = microvm(tap="tap0", metadata={"password": "hunter2"})
    assert "hunter2" not in repr(vm) + repr(for_image(vm, vsock=VSOCK))
