"""What takes images out of here without a registry: config, curl, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from doit import get_var

from fcbuild.errors import SpecError, did_you_mean
from fcbuild.tasks.action import quiet_pipe

if TYPE_CHECKING:
    from fcbuild.publish.bundle import Bundle
    from fcbuild.tasks.project import Project


def config(project: Project) -> None:
    """Print vm.json of an image, which need not be built."""
    from fcbuild.publish import bundle

    name = _one(project, "config")
    if name not in project.plan.bootable():
        project.refuse([name])
    with quiet_pipe():
        sys.stdout.write(bundle.vm_config(project.plan.specs.images[name]).decode())


def curl(project: Project) -> None:
    """Print boot.sh of an image, with the files where the store has them."""
    from fcbuild.publish import bundle

    spec = project.plan.specs.images[_one(project, "curl")]
    stored = _bundle(project, spec.name).stored
    places = {what: stored[name] for what, name in bundle.places(spec).items()}
    with quiet_pipe():
        sys.stdout.write(bundle.boot_script(spec, places))


def export(project: Project) -> None:
    """Write an image's files to a path, in the format that is asked for."""
    from fcbuild.publish import export

    name = _one(project, "export")
    to, form = get_var("to"), get_var("format")
    known = f"format={'|'.join(export.FORMATS)}"
    if to is None or form is None:
        raise SpecError([f"export needs {known} and to=PATH"])
    if form not in export.FORMATS:
        near = did_you_mean(form, export.FORMATS)
        raise SpecError([f"format={form}: no such format{near}"], hint=known)
    export.write(_bundle(project, name), form, Path(to))
    print(f"exported {name}  {form}  {to}")


def _one(project: Project, command: str) -> str:
    if len(project.to_boot) != 1:
        raise SpecError(
            [f"{command} takes one image at a time, not {', '.join(project.to_boot)}"],
            hint="name one image: image=NAME",
        )
    return project.to_boot[0]


def _bundle(project: Project, name: str) -> Bundle:
    from fcbuild.publish import bundle

    return bundle.built(project.plan, project.store, name)
