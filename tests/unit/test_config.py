"""What a microVM is made of, and the kernel's command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import VmmError
from fcbuild.vmm import config
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
    assert line.removeprefix(config.CMDLINE).split() == words
    assert [(drive.drive_id, drive.is_read_only) for drive in vm.drives] == [
        ("rootfs", True),
        *((name, name == "config") for name in files),
    ]


def test_a_root_of_ones_own_is_written_to() -> None:
    (root,) = microvm().drives
    assert root.is_root_device and not root.is_read_only


def test_a_command_line_is_no_longer_than_firecracker_takes_it() -> None:
    room = config.CMDLINE_MAX - len(config.CMDLINE) - 1
    assert for_image(microvm(arguments=("x" * room,)), vsock=VSOCK)
    with pytest.raises(VmmError, match="has 2049 bytes, 2048 are allowed") as caught:
        for_image(microvm(arguments=("x" * (room + 1),)), vsock=VSOCK)
    assert "kernel_arguments" in str(caught.value.hint)


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


def test_the_command_line_is_that_of_the_boot_contract() -> None:
    contract = Path(config.__file__).parents[1] / "guest" / "BOOT_CONTRACT.md"
    section = " ".join(contract.read_text().partition("## 5.")[2].split())
    assert f"`{config.CMDLINE}`" in section
    assert len(config.CMDLINE) < config.CMDLINE_MAX
