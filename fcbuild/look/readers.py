"""Which reader to take, and opening images with it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fcbuild import progress
from fcbuild.build.engine import Engine
from fcbuild.errors import ImageError, ToolMissing
from fcbuild.look import guestfs
from fcbuild.look.debugfs import DebugfsReader
from fcbuild.look.tree import Tree


@contextlib.contextmanager
def opened(
    images: Sequence[Path],
    *,
    wanted: str | None,
    engine: Engine,
    toolchain: Callable[[], str],
    logs: Path,
) -> Iterator[list[Tree]]:
    """Yield the trees of ext4 images: read with guestfs where its bindings are, else with debugfs.

    wanted: guestfs or debugfs, to insist on it. toolchain: makes sure of the image that has debugfs
    and returns its tag. logs: where the readers' logs go. Raises ImageError, ToolMissing.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fcbuild-look-")))
        trees = None
        missing = None if wanted == "debugfs" else guestfs.trouble()
        if wanted == "guestfs" and missing:
            raise ToolMissing(
                f"reader=guestfs: {missing}",
                hint="apt-get install python3-guestfs linux-image-cloud-amd64, or reader=debugfs",
            )
        if wanted != "debugfs" and missing is None:
            try:
                readers = stack.enter_context(
                    guestfs.readers(images, scratch, logs / "guestfs.log")
                )
                trees = [Tree(reader) for reader in readers]
            except (ImageError, ToolMissing) as error:
                if wanted:
                    raise
                progress.say(f"{error.message}: reading with debugfs instead")
        if trees is None:
            tag = toolchain()
            trees = []
            for image in images:
                own = Path(tempfile.mkdtemp(dir=scratch))
                log = logs / "debugfs.log"
                trees.append(Tree(DebugfsReader(image, engine, tag, scratch=own, log=log)))
        yield trees
