"""Two builds of images and of all they stand upon, compared as soon as both are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fcbuild import progress
from fcbuild.build.pipeline import Pipeline
from fcbuild.recipes import Recipe
from fcbuild.reproduce.second import elsewhere
from fcbuild.reproduce.verdict import Opened, Verdict, judge
from fcbuild.store import Artifact


def verdicts(
    pipeline: Pipeline,
    root: Path,
    images: Sequence[str],
    *,
    kernels: bool,
    at: Path,
    opened: Opened,
) -> Iterator[Verdict]:
    """Build what the store lacks, build all of it again elsewhere, and yield how that went: for the
    toolchain, bases, PID 1, root filesystems and, with `kernels`, the kernels of these images.

    root: the checkout; at: a directory for what is thrown away. Raises what a build raises.
    """
    plan = pipeline.plan
    bootable = [name for name in images if name in plan.bootable()]
    for name in images:
        if name in bootable:
            pipeline.rootfs(name)
        else:
            pipeline.container(name)
    own = sorted({plan.specs.images[name].kernel for name in bootable}) if kernels else []
    for name in own:
        pipeline.kernel(name)
    with elsewhere(root, plan, pipeline.store, images, at=at, strict=pipeline.strict) as second:
        with progress.step("building all of it again, elsewhere and from an empty store"):
            second.build(images=images)
        for recipe in _made(pipeline, images):
            yield judge(str(recipe), _first(pipeline, recipe), second.store.need(recipe), opened)
        for name in own:
            with progress.step(f"building kernel {name} again: as long as it took before"):
                second.build(kernels=[name])
            kernel = plan.kernel(name)
            yield judge(str(kernel), pipeline.store.need(kernel), second.store.need(kernel), opened)


def _made(pipeline: Pipeline, images: Sequence[str]) -> Iterator[Recipe]:
    """Yield what an image is made of, parents first, each once; containers are the engine's."""
    plan = pipeline.plan
    seen = set[str]()
    roots = [
        plan.rootfs(name) if name in plan.bootable() else plan.container(name) for name in images
    ]
    pending = [plan.toolchain, *roots]
    for recipe in pending:
        yield from _walk(recipe, seen)


def _walk(recipe: Recipe, seen: set[str]) -> Iterator[Recipe]:
    if recipe.fingerprint in seen:
        return
    seen.add(recipe.fingerprint)
    for parent in recipe.parents:
        yield from _walk(parent, seen)
    if recipe.kind != "container":
        yield recipe


def _first(pipeline: Pipeline, recipe: Recipe) -> Artifact:
    """Return the first build; a base whose image the engine held may not be in the store yet."""
    return pipeline.base(recipe) if recipe.kind == "base" else pipeline.store.need(recipe)
