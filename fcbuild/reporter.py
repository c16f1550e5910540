"""One line for each finished task: what it did, its name, its fingerprint or the reason."""

from __future__ import annotations

from typing import Any

from doit.reporter import ConsoleReporter

from fcbuild import progress

_COLOURS = {"built": "32", "skipped": "33", "failed": "31"}


class LineReporter(ConsoleReporter):  # type: ignore[misc]
    """Prints nothing for groups, for hidden tasks that had nothing to do and for results that
    print themselves. Errors are printed as they are: our messages say all there is to say."""

    desc = "one line for each task"

    def execute_task(self, task: Any) -> None:
        pass

    def skip_uptodate(self, task: Any) -> None:
        if task.actions and not task.name.startswith("_"):
            said = task.meta or {}
            self._line(said.get("state", "stored"), task.name, said.get("note", ""))

    def add_success(self, task: Any) -> None:
        if "state" in task.values:
            self._line(task.values["state"], task.name, task.values.get("note", ""))

    def _write_failure(self, result: dict[str, Any], *args: Any) -> None:
        failure = result["exception"]
        if failure.traceback:
            super()._write_failure(result, *args)
        else:
            self._line("failed", result["task"].name)
            progress.say(failure.message)

    def complete_run(self) -> None:
        for message in self.runtime_errors:
            progress.say(message)

    def _line(self, state: str, name: str, note: str = "") -> None:
        word = progress.colour(f"{state:<8}", _COLOURS.get(state, "0"))
        progress.say(f"{word} {name}  {note}".rstrip())
