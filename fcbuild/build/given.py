"""Kernels that the user has already: copied into the store once they are seen to be kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

from fcbuild import fetch, kernelneeds, progress
from fcbuild.build import kernel
from fcbuild.errors import InputChanged
from fcbuild.fetch import Source
from fcbuild.fingerprint import digest
from fcbuild.network import NetworkSpec
from fcbuild.recipes import Recipe
from fcbuild.series import KERNEL_FILE, GivenKernel
from fcbuild.spec import ImageSpec
from fcbuild.store import Stage


def build(
    recipe: Recipe, spec: GivenKernel, image: ImageSpec, downloads: Path, stage: Stage
) -> None:
    """Take the file, and hold it to what the boot contract needs for the image.

    Raises SourceError, BuildError, InputChanged.
    """
    sha256 = str(recipe.inputs["sha256"])
    path = spec.path
    if path is None:
        url = str(spec.url)
        source = Source(title=url, sha256=sha256, fetch=lambda to: fetch.download(url, to))
        path, _ = fetch.obtain(spec.description, [source], downloads)
    to = stage.file(KERNEL_FILE[spec.arch])
    with progress.step(f"{recipe}: taking {spec.url or spec.path}"):
        shutil.copyfile(path, to)
        if digest(to) != sha256:
            raise InputChanged(str(path))
        found = kernel.check(to, spec.arch)
    lacking = kernelneeds.check(
        found,
        what=f"the kernel of images/{image.name}",
        overlay=image.overlay,
        network=image.network != NetworkSpec(),
    )
    for one in lacking:
        progress.say(f"{recipe}: without {one}")
    if found.config is None:
        progress.say(f"{recipe}: it does not carry its configuration, so nothing is known of it")
