"""The tasks that check fcbuild itself: test, lint."""

from __future__ import annotations

from functools import partial

from fcbuild.tasks import commands
from fcbuild.tasks.action import act, python
from fcbuild.tasks.project import OPEN, Project, Task

_TEST_PROCESSES = 2


def test(project: Project, *, unit: bool) -> Task:
    """The task that runs the tests. unit: only those that need neither an engine nor a VM."""
    prepare = [] if unit else [partial(act, commands.prepare_tests, project)]
    # Two at a time, because a boot test mostly waits; a file's tests share what they set up. In
    # their own order: the files of few tests are the long ones, and would come last otherwise.
    split = ["-n", str(_TEST_PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder"]
    argv = ["-m", "pytest", *split]
    pytest = partial(act, python, *argv, "tests/unit" if unit else "tests")
    return {"actions": [*prepare, pytest], "uptodate": [False], **OPEN}


def lint() -> Task:
    """The task that checks style and types."""
    tools = [
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
    ]
    return {
        "actions": [partial(act, python, *tool) for tool in tools],
        "uptodate": [False],
        **OPEN,
    }
