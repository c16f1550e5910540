"""PID 1's share of a boot, in counted instructions: the same on every machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import boot
from bench.boot import ARMS, Result

# The median counts; the shell is far from its limit.
RUNS = {"fcbuild": 3, "mounts": 3, "shell": 1}

pytestmark = pytest.mark.boot


def test_the_way_to_exec_is_as_short_as_it_has_to_be(tmp_path: Path) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    made = boot.prepare()
    counted = {
        arm: [made.count(ARMS[arm], tmp_path) for _ in range(runs)] for arm, runs in RUNS.items()
    }
    result = Result(kvm="not asked", init_bytes=0, counted=counted, linked=[])
    assert [target for target in result.targets() if not target.met] == []
