"""Base images, bootstrapped from a distribution's signed packages: no registry is needed."""

from __future__ import annotations

import os
from pathlib import Path

from fcbuild import progress
from fcbuild.build.engine import Engine
from fcbuild.errors import ToolMissing
from fcbuild.plan import Recipe
from fcbuild.run import need, run
from fcbuild.spec import Bootstrap
from fcbuild.store import Artifact, Stage

TAR = "rootfs.tar"
TIMEOUT_S = 1800.0

# What the distributions' own images say, so that a Dockerfile FROM ours behaves the same.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHANGES = (f"ENV PATH={_PATH}", 'CMD ["bash"]')


def build(recipe: Recipe, spec: Bootstrap, stage: Stage) -> None:
    """Make rootfs.tar. mmdebstrap checks the archive's signatures and picks its mode by itself:
    plain as root, else a user namespace. Raises CommandFailed, ToolMissing.
    """
    if os.getuid() and not Path("/usr/bin/newuidmap").exists():
        raise ToolMissing(
            "bootstrapping a base image without root needs newuidmap",
            hint="apt-get install uidmap",
        )
    with progress.step(f"{recipe}: bootstrapping {spec.suite} from signed packages"):
        run(
            [
                need("mmdebstrap", "mmdebstrap"),
                "--variant=minbase",
                "--architectures=amd64",
                f"--include={','.join(spec.packages)}",
                spec.suite,
                stage.file(TAR),
            ],
            what=f"bootstrapping {recipe.name}",
            log=stage.log,
            log_path=stage.log_path,
            timeout_s=TIMEOUT_S,
        )


def load(engine: Engine, artifact: Artifact, tag: str) -> None:
    """Give the base image to the engine, unless it has it."""
    if not engine.has(tag):
        engine.load(artifact.file(TAR), tag, _CHANGES)
