"""A boot that never reaches PID 1, in real Firecracker: its second boot lets the kernel speak."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable

import pytest

from fcbuild.errors import GuestPanic
from fcbuild.tasks import Project
from fcbuild.verify import verify
from fcbuild.vmm.firecracker_machine import FirecrackerVmm
from tests.conformance.microvm import Lab
from tests.workspace import STORE, Workspace

pytestmark = pytest.mark.boot


def without_superblock(disk: bytearray) -> None:
    disk[1024:2048] = bytes(1024)


def without_init(disk: bytearray) -> None:
    """The file is there, but no program."""
    at = disk.index(b"\x7fELF")
    while at >= 0:
        disk[at : at + 4] = bytes(4)
        at = disk.find(b"\x7fELF", at)


@pytest.mark.parametrize(
    ("spoil", "panic", "word"),
    [
        (without_superblock, "VFS: Unable to mount root fs", "No filesystem could mount root"),
        (without_init, "Requested init /.fcbuild/init failed", "Run /.fcbuild/init as init"),
    ],
)
def test_the_kernel_says_why_pid_1_was_not_reached(
    checkout: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[bytearray], None],
    panic: str,
    word: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["doit"])  # a project reads its variables there
    monkeypatch.setenv("FCBUILD_STORE", str(STORE))
    lab = Lab(Project(checkout.root, default_image="hello"))
    spec = lab.plan.specs.images["hello"]
    kernel, _ = lab.pipeline.kernel(spec.kernel)
    good, _ = lab.pipeline.rootfs("hello")
    directory = checkout.root / "spoiled"
    shutil.copytree(good.directory, directory)
    disk = bytearray(good.file("rootfs.ext4").read_bytes())
    spoil(disk)
    (directory / "rootfs.ext4").unlink()
    (directory / "rootfs.ext4").write_bytes(disk)
    receipt = checkout.root / "receipt.json"
    with pytest.raises(GuestPanic) as caught:
        verify(
            spec,
            kernel=kernel,
            rootfs=good._replace(directory=directory),
            vmm=FirecrackerVmm(lab.host, lab.firecracker),
            receipt_path=receipt,
        )
    shutil.rmtree(caught.value.run_dir)
    first, second = caught.value.message.split("booted once more with the kernel's messages on: ")
    assert panic in first and word not in first
    assert f"Kernel panic - not syncing: {panic}" in second.splitlines()[0]
    assert word in second
    told = json.loads(receipt.read_text())
    assert not told["ok"] and told["error"] == caught.value.message
    assert word in "\n".join(told["second_boot"]["console"])
