"""Whether programs of another architecture run here, by what the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fcbuild.build import foreign
from fcbuild.errors import ToolMissing

REGISTERED = "enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\n"


def test_this_machines_own_need_nothing(tmp_path: Path) -> None:
    assert foreign.trouble(os.uname().machine, tmp_path / "none") is None


@pytest.mark.parametrize("flags", ["F", "PF", "OCF"])
def test_a_registered_emulator_runs_them(tmp_path: Path, flags: str) -> None:
    (tmp_path / "qemu-other").write_text(REGISTERED.format(flags=flags))
    assert foreign.trouble("other", tmp_path) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no emulator for other is registered"),
        (REGISTERED.format(flags="P"), "without the flag F"),
        (REGISTERED.format(flags="F").replace("enabled", "disabled"), "is switched off"),
        ("", "is switched off"),
        ("enabled\n", "without the flag F"),
    ],
)
def test_what_is_in_the_way_is_told(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "qemu-other").write_text(text)
    assert why in str(foreign.trouble("other", tmp_path))


def test_a_build_that_needs_it_is_refused_with_the_way_out() -> None:
    with pytest.raises(ToolMissing, match="an image for other cannot be built here") as caught:
        foreign.insist("other")
    assert "qemu-user-static" in str(caught.value.hint)
