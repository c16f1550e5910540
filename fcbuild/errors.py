"""The errors a user can meet: each says what and where, and its hint says what to do next.

Anything that is not an FcBuildError is our bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class FcBuildError(Exception):
    """The root of all errors that are reported without a traceback."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class SpecError(FcBuildError):
    """What is wrong in image.toml, kernel.toml or a Dockerfile; all errors of a run at once."""

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class InputChanged(FcBuildError):
    """A file that a build is made from changed, or went away, while it was being read."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path}: changed while it was being read",
            hint="run it again when whatever writes it has ended",
        )
        self.path = path


class ToolMissing(FcBuildError):
    """A host tool or service that the task needs is not there."""


class CommandFailed(FcBuildError):
    """A tool ended with another status than 0.

    `status` is the exit status, or -n when signal n ended it; `tail` the last lines it printed.
    """

    def __init__(
        self,
        what: str,
        *,
        argv: Sequence[str],
        status: int,
        tail: Sequence[str] = (),
        log: Path | None = None,
        hint: str | None = None,
    ) -> None:
        import shlex

        end = f"signal {-status}" if status < 0 else f"status {status}"
        lines = [f"{what} failed with {end}: {shlex.join(argv)}", *(f"  | {line}" for line in tail)]
        if log is not None:
            lines.append(f"  whole log: {log}")
        super().__init__("\n".join(lines), hint=hint)
        self.argv = tuple(argv)
        self.status = status
        self.tail = tuple(tail)
        self.log = log


class SourceError(FcBuildError):
    """A pinned source could not be had, or its bytes are not the pinned ones."""


class StoreError(FcBuildError):
    """The store cannot be used, or an object in it is not whole."""


class BuildError(FcBuildError):
    """What was built does not pass its gate (a dropped CONFIG line, a failed e2fsck)."""


class ImageError(FcBuildError):
    """A root filesystem cannot be read, or has not in it what is looked for."""


class RegistryError(FcBuildError):
    """A registry does not answer, or refuses. status: of its answer, 0 for none."""

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ArtifactError(FcBuildError):
    """An image that was published or exported is not what it has to be, or not for here."""


class PublishRefused(FcBuildError):
    """An image is not to be published as it is."""


class VmmError(FcBuildError):
    """Something between us and a running microVM failed."""


class ApiError(VmmError):
    """Firecracker refused an API call; `fault` is its own fault_message."""

    def __init__(self, method: str, path: str, status: int, fault: str) -> None:
        super().__init__(f"Firecracker refused {method} {path} with {status}: {fault}")
        self.method = method
        self.path = path
        self.status = status
        self.fault = fault


class BootFailed(VmmError):
    """The guest did not get where it had to; carries the evidence.

    `stage` is the last stage that the guest reported, `console` its last console lines.
    """

    def __init__(
        self,
        what: str,
        *,
        stage: str,
        console: Sequence[str] = (),
        run_dir: Path,
        hint: str | None = None,
    ) -> None:
        lines = [f"{what} (last stage reached: {stage})", *(f"  | {line}" for line in console)]
        lines.append(f"  run directory, with all logs: {run_dir}")
        super().__init__("\n".join(lines), hint=hint)
        self.stage = stage
        self.console = tuple(console)
        self.run_dir = run_dir


class BootTimeout(BootFailed):
    """The deadline passed."""


class GuestPanic(BootFailed):
    """The guest kernel panicked."""


class GuestExited(BootFailed):
    """The VM ended before it was ready."""


class CheckFailed(FcBuildError):
    """The guest came up, but a [[check]] did not hold before the deadline."""


class EvidenceError(FcBuildError):
    """A piece of evidence about an image cannot be made, or what was attached to one is none."""


class NotTrusted(FcBuildError):
    """A published image does not pass the policy that says what is trusted."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the nearest known word, or the empty string."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
