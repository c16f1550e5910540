"""Root filesystems: from an image in the engine to rootfs.ext4, packed while it is exported."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from fcbuild import progress
from fcbuild.build import packing
from fcbuild.build.engine import Engine
from fcbuild.recipes import Recipe
from fcbuild.spec import ImageSpec
from fcbuild.store import Stage

CHECK_TIMEOUT_S = 1800.0


# One packing keeps two cores busy, for the engine exports what is packed. More at a time would only
# make each of them slower, and what else is being built.
_turn = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))


def build(
    recipe: Recipe,
    spec: ImageSpec,
    engine: Engine,
    *,
    image: str,
    toolchain: str,
    init: Path,
    epoch: int,
    stage: Stage,
) -> None:
    """Make rootfs.ext4 from the engine's image, no file of it newer than `epoch`.

    Raises BuildError, CommandFailed.
    """

    def export(to: IO[bytes]) -> None:
        engine.export(image, to, platform=spec.platform, log=stage.log, log_path=stage.log_path)

    order = packing.Order(recipe.name, spec, engine.config(image), init, epoch, stage.directory)
    with _turn:
        # Its container starts beside the export.
        stage.gates.append(stage.held.enter_context(checking(engine, toolchain, stage)))
        with progress.step(f"{recipe}: packing {image}"):
            packed = packing.packed(order, image, export, stage)
    for warning in packed.warnings:
        progress.say(f"warning: {warning}")
    stage.facts.update(packed.facts)


def checking(
    engine: Engine, toolchain: str, stage: Stage
) -> AbstractContextManager[Callable[[], None]]:
    """Have e2fsck, which shares nothing with what wrote them, ready to look at the file systems:
    yields what has it look. Its status 0 is "no error found"; -n changes nothing. Raises
    CommandFailed."""
    return engine.standby(
        toolchain,
        ["sh", "-euc", 'for image in /out/*.ext4; do e2fsck -fn "$image"; done'],
        what="checking the root filesystem with e2fsck",
        mounts={stage.directory: "/out:ro"},
        log=stage.log,
        log_path=stage.log_path,
        timeout_s=CHECK_TIMEOUT_S,
    )
