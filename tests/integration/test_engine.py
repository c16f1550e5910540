"""A container that stands by, with the real engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import docker
import pytest

from fcbuild import spec
from fcbuild.build import owner
from fcbuild.build.containers import LABEL
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import CommandFailed, ToolMissing
from fcbuild.plan import Plan
from fcbuild.store import Store
from tests.workspace import ROOT, STORE

pytestmark = pytest.mark.engine

Standby = Callable[..., AbstractContextManager[Callable[[], None]]]


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[Standby]:
    """Have a shell command stand by in the toolchain image, or in another; it sees a directory
    `out` of tmp_path, and logs to `log` there."""
    toolchain = Pipeline(Plan(spec.load(ROOT)), Store(STORE), Docker()).toolchain()
    (tmp_path / "out").mkdir()
    with (tmp_path / "log").open("wb", buffering=0) as log:
        yield lambda command, tag=toolchain: Docker().standby(
            tag,
            ["sh", "-c", command],
            what="the command",
            mounts={tmp_path / "out": "/out:rw"},
            log=log,
            log_path=tmp_path / "log",
            timeout_s=60,
        )


def containers() -> list[Any]:
    """Return those of this process."""
    label = f"{LABEL}={owner.ours()}"
    with contextlib.closing(docker.from_env()) as client:
        found: list[Any] = client.api.containers(all=True, filters={"label": label})
    return found


def test_a_command_that_stands_by_runs_when_it_is_let_go(standby: Standby, tmp_path: Path) -> None:
    with standby("cat /out/*; touch /out/ran") as go:
        (tmp_path / "out" / "late").write_text("what came meanwhile\n")
        assert not (tmp_path / "out" / "ran").exists()
        go()
        assert (tmp_path / "out" / "ran").exists()
    assert (tmp_path / "log").read_text() == "what came meanwhile\n"
    assert not containers()


def test_one_that_fails_is_told_with_what_it_said(standby: Standby) -> None:
    with (
        standby("echo so it is; exit 4") as go,
        pytest.raises(CommandFailed, match=r"the command failed with status 4(.|\n)*\| so it is"),
    ):
        go()


def test_one_that_is_never_let_go_does_not_run_and_is_gone(
    standby: Standby, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError), standby("touch /out/ran"):
        raise ZeroDivisionError
    assert not (tmp_path / "out" / "ran").exists()
    assert not containers()


def test_one_that_cannot_be_had_is_told_when_it_is_wanted(standby: Standby) -> None:
    with (
        standby("true", "fcbuild/no-such:image") as go,
        pytest.raises(ToolMissing, match="refuses"),
    ):
        go()
