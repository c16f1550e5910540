"""What the guest's kernel is told, as it is seen from inside."""

from __future__ import annotations

import pytest

from fcbuild.kernel_command_line import FIRECRACKER_X86
from tests.boot.test_boot import DEBIAN, kept_run_dir
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

SHOW = (
    DEBIAN + 'CMD ["sh", "-c", "cat /proc/cmdline;'
    ' cat /sys/devices/system/clocksource/clocksource0/current_clocksource; exit 1"]\n'
)
DEVICES = 4  # root, config drive, vsock, entropy


def test_words_of_the_image_and_of_the_instance_reach_the_kernel_whole(checkout: Workspace) -> None:
    """On a line that is as long as it may be."""
    words = ["hugepages=1", 'own.a="b c"', "fcbuild.env=SEEN=yes"]
    room = FIRECRACKER_X86.limit - 1 - len(FIRECRACKER_X86.line([], devices=0))
    room -= len(" ".join(["", "fcbuild.config=/dev/vdb", *words, "own.x="]))
    appended = [*FIRECRACKER_X86.appended, *[FIRECRACKER_X86.device] * DEVICES]
    room -= sum(1 + len(word.text) for word in appended if word)
    words.append("own.x=" + "x" * room)
    first, second, *others = (f"'{word}'" for word in words)
    boot = f"[boot]\nexpect_exit = 0\nkernel_arguments = [{first}, {second}]\n"
    checkout.image("told", boot, SHOW)
    (checkout.root / "own.toml").write_text(f"kernel_arguments = [{', '.join(others)}]\n")
    result = checkout.doit("boot", "image=told", "instance=own.toml")
    assert "expected the program to end with status 0, got status 1" in result.output
    line, clock = (kept_run_dir(result.output) / "output.log").read_text().splitlines()
    assert clock == "kvm-clock"
    given = FIRECRACKER_X86.line(["fcbuild.config=/dev/vdb", *words], devices=DEVICES)
    assert line.startswith(given + " ")
    # Firecracker 1.13 and later append pci=off too; an IRQ may have one digit.
    theirs = [word for word in line.removeprefix(given).split() if word != "pci=off"]
    assert theirs[:2] == ["root=/dev/vda", "rw"]
    devices = [word.rpartition("@")[0] for word in theirs[2:]]
    assert devices == ["virtio_mmio.device=4K"] * DEVICES
    assert FIRECRACKER_X86.device
    assert max(map(len, theirs)) <= len(FIRECRACKER_X86.device.text)

    own = (checkout.root / "own.toml").read_text()
    (checkout.root / "own.toml").write_text(own.replace("own.x=", "own.x=x"))
    result = checkout.doit("boot", "image=told", "instance=own.toml")
    assert result.status == 1
    assert "command line has 2048 bytes" in result.output
