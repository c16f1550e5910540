"""PID 1's pure parts (boot config, JSON, requests, PATH, interpreters), by their own C tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GUEST = Path(__file__).resolve().parents[2] / "fcbuild" / "guest"


def test_pure_parts(tmp_path: Path) -> None:
    """Build the C unit tests with the host's compiler and run them."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or shutil.which("make") is None:
        pytest.skip("no C compiler or no make on this machine")
    result = subprocess.run(
        ["make", "-s", "-C", str(GUEST), f"OUT={tmp_path}", f"CC={compiler}", "host-tests"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
