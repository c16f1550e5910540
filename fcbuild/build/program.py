"""Our own programs, in C, static: the guest's PID 1 and the agent of an emulated KVM host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import cast

from fcbuild import fingerprint, progress
from fcbuild.build.engine import Engine
from fcbuild.errors import InputChanged
from fcbuild.plan import KVMHOST, PACKAGE
from fcbuild.recipes import Recipe
from fcbuild.store import Stage

# What each program's recipe names as its sources' directory, and what its Makefile makes there.
BINARY = {"init": "init", "agent": "agent"}
TIMEOUT_S = 600.0


# The compiler, where it is not the one that the Makefile names: musl's, as that one is.
_COMPILER = {
    "aarch64": "aarch64-linux-gnu-gcc -specs /usr/lib/aarch64-linux-musl/musl-gcc.specs",
}


def build(recipe: Recipe, engine: Engine, toolchain: str, stage: Stage) -> None:
    """Compile the program's sources. Raises CommandFailed with the errors."""
    directory = PACKAGE / recipe.name.partition("@")[0]
    compiler = _COMPILER.get(str(recipe.inputs.get("arch")))
    sources = cast(Mapping[str, str], recipe.inputs["sources"])
    # What is another program's lies beside this one, as it does here.
    shared = any(name.startswith("../") for name in sources)
    link = {PACKAGE / KVMHOST: f"/{KVMHOST}:ro"} if shared else {}
    with progress.step(f"{recipe}: compiling"):
        engine.run(
            toolchain,
            [
                "make",
                "--no-print-directory",
                "-C",
                "/src",
                "OUT=/out",
                *([f"CC={compiler}"] if compiler else []),
                f"/out/{BINARY[recipe.kind]}",
            ],
            what=f"compiling {recipe.name}",
            mounts={directory: "/src:ro", **link, stage.directory: "/out:rw"},
            log=stage.log,
            log_path=stage.log_path,
            timeout_s=TIMEOUT_S,
        )
    for name, described in sources.items():
        if fingerprint.describe(directory / name) != described:
            raise InputChanged(os.path.normpath(f"fcbuild/{directory.name}/{name}"))
