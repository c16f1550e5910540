"""doit's tasks: the only room, with reporter.py, that knows doit.

project: the tasks, and checkup: those about fcbuild itself; commands, releases, trust, exports:
what those do that are a person's commands; command_line: variables and options; action: the seam
to doit.
"""

from __future__ import annotations

from fcbuild.tasks.action import interruptible, named
from fcbuild.tasks.checkup import lint, test
from fcbuild.tasks.command_line import ALL, CHECK, DRY_RUN, JSON, MATRIX, NO_KERNEL
from fcbuild.tasks.project import Project

__all__ = [
    "ALL",
    "CHECK",
    "DRY_RUN",
    "JSON",
    "MATRIX",
    "NO_KERNEL",
    "Project",
    "interruptible",
    "lint",
    "named",
    "test",
]
