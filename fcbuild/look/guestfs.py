"""Read images through libguestfs: a real kernel's ext4 driver, in a small VM of libguestfs's own.

The bindings come with the distribution, for its own Python: our half talks to a program of ours
(guestfs_program.py) that runs there.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fcbuild import progress
from fcbuild.errors import ImageError, ToolMissing
from fcbuild.look.entry import MAX_ENTRIES, Entry, Space, order
from fcbuild.plan import PACKAGE
from fcbuild.run import conversation, output
from fcbuild.vmm import kvm

PYTHON = "/usr/bin/python3"  # where distributions install the bindings
PROGRAM = PACKAGE / "look" / "guestfs_program.py"
TIMEOUT_S = 1800.0

# A path has 4,096 bytes, six characters each in JSON; a piece of a file 1 MiB in base64.
_MAX_LINE = 2 << 20


def trouble() -> str | None:
    """Return why there are no bindings to read with, or None."""
    if output([PYTHON, "-c", "import guestfs"], what="looking for guestfs") is None:
        return f"{PYTHON} has no module guestfs"
    return None


@contextlib.contextmanager
def readers(images: Sequence[Path], scratch: Path, log_path: Path) -> Iterator[list[GuestfsReader]]:
    """Start one appliance for all the images; yield their readers. Raises ToolMissing."""
    env = {
        "LIBGUESTFS_BACKEND": "direct",  # no daemon of libvirt's in between
        # A KVM that opens but cannot run guests would keep the appliance from ever starting.
        "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg" if kvm.trouble() else "",
        # Not TMPDIR: the appliance itself would be made there, anew each time.
        "LIBGUESTFS_TMPDIR": str(scratch),
    }
    paths = [image.resolve() for image in images]
    with (
        log_path.open("wb") as log,
        conversation(
            # -I: no module of the program's own directory takes the place of the bindings.
            [PYTHON, "-I", PROGRAM, *paths],
            what="guestfs",
            log=log,
            env=env,
            timeout_s=TIMEOUT_S,
        ) as (questions, answers),
    ):
        appliance = Appliance(questions, answers)
        try:
            with progress.step("guestfs: starting its appliance"):
                for _ in appliance.answer():
                    pass
        except ImageError as error:
            raise ToolMissing(
                f"guestfs does not start: {error.message}",
                hint=f"see {log_path}; reader=debugfs needs the container engine only",
            ) from error
        yield [GuestfsReader(path, number, appliance) for number, path in enumerate(paths)]


class Appliance:
    """A conversation with guestfs_program.py, whose docstring has its rules."""

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions = questions
        self._answers = answers

    def ask(self, what: str, image: int, path: str = "") -> Iterator[dict[str, Any]]:
        """Ask; yield the lines of the answer, all of which have to be taken."""
        question = {"ask": what, "image": image, "path": path}
        with contextlib.suppress(BrokenPipeError):  # the answer is then that it ended
            self._questions.write(json.dumps(question).encode() + b"\n")
            self._questions.flush()
        yield from self.answer()

    def answer(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of an answer. Raises ImageError."""
        while True:
            line = self._answers.readline(_MAX_LINE)
            if not line.endswith(b"\n"):
                raise ImageError("guestfs's program ended, or took too long")
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise ImageError(str(answer["error"]))
            if "end" in answer:
                return
            yield answer


class GuestfsReader:
    """Reads one of the appliance's images."""

    name = "guestfs"

    def __init__(self, image: Path, number: int, appliance: Appliance) -> None:
        self._image = image
        self._number = number
        self._appliance = appliance

    def space(self) -> Space:
        (found,) = self._ask("space")
        return Space(size=self._image.stat().st_size, **found)

    def walk(self) -> Iterator[Entry]:
        entries: list[Entry] = []
        for found in self._ask("walk"):
            if len(entries) == MAX_ENTRIES:
                raise ImageError(f"{self._image} has more than {MAX_ENTRIES} entries")
            entries.append(_entry(found))
        yield from sorted(entries, key=lambda entry: order(entry.path))

    def read(self, entry: Entry) -> Iterator[bytes]:
        for found in self._ask("read", entry.path):
            yield base64.b64decode(found["piece"])

    def digests(self) -> Mapping[str, str]:
        return {found["path"]: found["digest"] for found in self._ask("digests")}

    def _ask(self, what: str, path: str = "") -> Iterator[dict[str, Any]]:
        return self._appliance.ask(what, self._number, path)


def _entry(found: dict[str, Any]) -> Entry:
    device = found.pop("device")
    xattrs = {name: bytes.fromhex(value) for name, value in found.pop("xattrs").items()}
    return Entry(**found, device=tuple(device) if device else None, xattrs=xattrs)
