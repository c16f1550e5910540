"""One more boot of a microVM that failed without a word, for what its kernel has to say.

`quiet` is right for every boot but this one: where PID 1 was not reached, or did not get far enough
to say why, only the kernel knows. So the same machine is booted again, from drives as new, with all
messages on its console; the first boot's error stays the error, and this goes with it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fcbuild.errors import BootFailed, FcBuildError
from fcbuild.microvm import remove_drives
from fcbuild.vmm.config import MicroVm
from fcbuild.vmm.machine import Machine, Vmm, last_lines

DIRECTORY = "verbose"  # below the first boot's run directory
DEADLINE_S = 20.0  # on hardware; a kernel that misses its root gives up after 12 s
LINES = 30  # of the console, in an error


@dataclass(frozen=True)
class SecondBoot:
    """How it went, in words, and the last lines of the console, all of which are in `log`."""

    outcome: str
    console: tuple[str, ...]
    log: Path

    def text(self) -> str:
        """Return it as the rest of an error's message."""
        return "\n".join(
            [
                f"  booted once more with the kernel's messages on: {self.outcome}",
                *(f"  | {line}" for line in self.console),
                f"  all of them: {self.log}",
            ]
        )


def helps(error: FcBuildError, machine: Machine) -> bool:
    """Whether a failed boot is one that only the kernel can explain: the guest was started, no
    program ran, and PID 1 did not say what was wrong."""
    return (
        isinstance(error, BootFailed)
        and machine.timings.started > 0
        and machine.complaint is None
        and not {"exec", "exit"} & machine.timings.stages.keys()
    )


def watch(
    make: Callable[[Path], MicroVm],
    vmm: Vmm,
    *,
    run_dir: Path,
    spawn_s: float,
    seconds: float,
) -> SecondBoot:
    """Boot once more, in a directory of its own below run_dir, up to the program or a failure.

    make: returns the microVM, its drives in the directory it is given. spawn_s: for the VMM to
    answer; seconds: for the guest. Raises nothing but what is our bug.
    """
    directory = run_dir / DIRECTORY
    directory.mkdir(mode=0o700)
    log = directory / "console.log"
    try:
        vm = replace(make(directory), verbose=True)
    except FcBuildError as error:
        shutil.rmtree(directory)  # some of the drives may be there, with the instance's values
        return SecondBoot(f"that failed: {error.message}", (), log)
    try:
        with vmm.machine(vm, directory) as machine:
            machine.start(time.monotonic() + spawn_s)
            machine.wait_for("exec", time.monotonic() + seconds)
        outcome = "this time the program was started"
    except FcBuildError as error:
        outcome = error.message.partition("\n")[0]
    finally:
        remove_drives(vm, directory)
    return SecondBoot(outcome, tuple(last_lines(log, LINES)), log)
