"""Our own programs, in C, static: the guest's PID 1 and the agent of an emulated KVM host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from fcbuild import fingerprint, progress
from fcbuild.build.engine import Engine
from fcbuild.errors import InputChanged
from fcbuild.plan import PACKAGE, Recipe
from fcbuild.store import Stage

# What each program's recipe names as its sources' directory, and what its Makefile makes there.
BINARY = {"init": "init", "agent": "agent"}
TIMEOUT_S = 600.0


def build(recipe: Recipe, engine: Engine, toolchain: str, stage: Stage) -> None:
    """Compile the sources of fcbuild/<recipe.name>. Raises CommandFailed with the errors."""
    with progress.step(f"{recipe}: compiling"):
        engine.run(
            toolchain,
            [
                "make",
                "--no-print-directory",
                "-C",
                "/src",
                "OUT=/out",
                f"/out/{BINARY[recipe.kind]}",
            ],
            what=f"compiling {recipe.name}",
            mounts={PACKAGE / recipe.name: "/src:ro", stage.directory: "/out:rw"},
            log=stage.log,
            log_path=stage.log_path,
            timeout_s=TIMEOUT_S,
        )
    for name, described in cast(Mapping[str, str], recipe.inputs["sources"]).items():
        if fingerprint.describe(PACKAGE / recipe.name / name) != described:
            raise InputChanged(f"fcbuild/{recipe.name}/{name}")
