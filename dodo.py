"""The table of contents: every task of fcbuild, as `doit list` shows them.

    image.toml + Dockerfile --> _image:NAME --> rootfs:NAME --+
    kernel.toml + fragments ---------------> kernel:NAME ----+--> build
                                                             +--> boot --> receipt

What each does, and how they hang together: fcbuild/tasks/.
"""

# ruff: noqa: E402 (how modules are imported is said before they are)

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit import task_params

# Keep compiled modules also where the environment says not to: without them each command starts by
# compiling the program, which takes longer than all that a build with nothing to do has to do.
sys.dont_write_bytecode = False
gc.disable()  # until all is loaded

from fcbuild import tasks
from fcbuild.errors import FcBuildError
from fcbuild.reporter import LineReporter

# The directory of images/: this one, or another's that has no fcbuild in it.
ROOT = Path(os.environ.get("FCBUILD_PROJECT") or Path(__file__).parent).resolve()
DEFAULT_IMAGE = "debian-web"  # what `doit boot` boots when it is not told

DOIT_CONFIG = {
    "backend": "sqlite3",
    "dep_file": str(ROOT / "artifacts" / ".doit.sqlite"),
    "default_tasks": ["build"],
    "par_type": "thread",
    "reporter": LineReporter,
    "verbosity": 0,
}

tasks.interruptible()
try:
    project = tasks.Project(ROOT, default_image=DEFAULT_IMAGE)
except FcBuildError as error:
    sys.exit(f"error: {error}")
atexit.register(project.digests.save)
# What is loaded stays: nobody need look through it again, neither while tasks run nor at the end.
gc.freeze()
gc.enable()


def task_build() -> dict[str, Any]:
    """build kernels and root filesystems (image=NAME, default: all that can be built here)"""
    return project.build()


def task_boot() -> dict[str, Any]:
    """boot an image in Firecracker and run its checks (image=NAME or from=REFERENCE, kvm=...)"""
    return project.boot()


def task_publish() -> dict[str, Any]:
    """push images that booted to a registry (image=NAME, to=REGISTRY/REPOSITORY:TAG)"""
    return project.publish()


@tasks.named("verify-artifact")
@task_params([tasks.JSON])
def verify_artifact(json: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """show whether what a registry has is to be trusted (from=REFERENCE, key=FILE; --json)"""
    return project.verify_artifact(as_json=json)


@task_params([tasks.JSON])
def task_inspect(json: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """show what is in a built root filesystem (image=NAME, path=/etc; --json)"""
    return project.inspect(as_json=json)


@task_params([tasks.JSON, tasks.ALL])
def task_diff(json: bool, all: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """show how two root filesystems differ (a=IMAGE b=IMAGE, or fingerprints; --all, --json)"""
    return project.diff(everything=all, as_json=json)


@task_params([tasks.JSON, tasks.ALL, tasks.NO_KERNEL])
def task_reproduce(json: bool, all: bool, no_kernel: bool) -> dict[str, Any]:  # noqa: FBT001
    """build an image again, elsewhere, and compare the bytes (image=NAME; --no-kernel, --json)"""
    return project.reproduce(kernels=not no_kernel, everything=all, as_json=json)


@task_params([tasks.JSON, tasks.MATRIX])
def task_plan(json: bool, matrix: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """show what a build would make, and why (image=NAME; --json, --matrix: for machines)"""
    return project.show_plan(as_json=json, matrix=matrix)


@task_params([tasks.CHECK])
def task_lock(check: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """lock what images stand on to what it is now (image=NAME, kernel=SERIES; --check)"""
    return project.lock(check=check)


def task_config() -> dict[str, Any]:
    """print an image's microVM for firecracker --config-file (image=NAME)"""
    return project.config()


def task_curl() -> dict[str, Any]:
    """print a script that boots an image with curl alone (image=NAME)"""
    return project.curl()


def task_export() -> dict[str, Any]:
    """write an image's files (image=NAME, to=PATH, format=dir|tar|oci-layout|containerdisk)"""
    return project.export()


@task_params([tasks.DRY_RUN, tasks.JSON])
def task_gc(dry_run: bool, json: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """remove from the store what is needed no more (age=30d, size=20GiB; --dry-run, --json)"""
    return project.gc(dry_run=dry_run, as_json=json)


@task_params([tasks.DRY_RUN, tasks.JSON])
def task_fsck(dry_run: bool, json: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """read the whole store, and drop what is not as it was built (--dry-run, --json)"""
    return project.fsck(dry_run=dry_run, as_json=json)


def task_kernel() -> Iterator[dict[str, Any]]:
    """build guest kernels"""
    yield from project.kernels()


def task_rootfs() -> Iterator[dict[str, Any]]:
    """build ext4 root filesystems"""
    yield from project.rootfses()


def task__image() -> Iterator[dict[str, Any]]:
    """build container images, which root filesystems are made from"""
    yield from project.images()


def task__toolchain() -> dict[str, Any]:
    return project.toolchain()


def task__init() -> Iterator[dict[str, Any]]:
    yield from project.inits()


def task__agent() -> dict[str, Any]:
    return project.program(lambda: project.plan.agent)


@task_params(
    [
        {
            "name": "unit",
            "long": "unit",
            "type": bool,
            "default": False,
            "help": "only the tests that need neither an engine nor a VM",
        },
    ]
)
def task_test(unit: bool) -> dict[str, Any]:  # noqa: FBT001 (doit passes it by name)
    """run the tests (--unit: only the fast ones)"""
    return tasks.test(project, unit=unit)


def task_lint() -> dict[str, Any]:
    """check style and types (ruff, mypy, shellcheck)"""
    return tasks.lint()
