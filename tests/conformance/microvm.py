"""The microVM: the real pipeline and launcher, used as a library."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from fcbuild.microvm import assemble
from fcbuild.plan import KVM_HOST
from fcbuild.tasks import Project, commands
from fcbuild.verify import SPAWN_S
from fcbuild.vmm import firecracker
from fcbuild.vmm.firecracker_machine import FirecrackerMachine
from fcbuild.vmm.machine import Machine
from tests.conformance.facts import Health, Ran
from tests.conformance.oracle import CTRL_ALT_DEL

DEADLINE_S = 120.0


class Lab:
    """Boots the images of one checkout; what is common to all boots is made once."""

    def __init__(self, project: Project) -> None:
        self.plan, self.pipeline = project.plan, project.pipeline
        if project.emulated:
            self.pipeline.kernel(KVM_HOST)
            self.pipeline.program(self.plan.agent)
        self.host = commands.kvm_host(project)
        self.firecracker = firecracker.find(self.pipeline.downloads)

    def run(self, image: str, *, ask: str, verdicts: int, oracle: Ran) -> Ran:
        """Run an image to its end, asked as the oracle was, whose run tells the streams apart."""
        spec = self.plan.specs.images[image]
        kernel, _ = self.pipeline.kernel(spec.kernel)
        rootfs, _ = self.pipeline.rootfs(image)
        # Short, for the sockets in it.
        run_dir = Path(tempfile.mkdtemp(prefix="fcc-"))
        try:
            vm = assemble(spec, kernel=kernel, rootfs=rootfs, place=self.host, run_dir=run_dir)
            with FirecrackerMachine(
                self.host, vm, firecracker=self.firecracker.path, run_dir=run_dir
            ) as machine:
                return _run(machine, ask, verdicts, oracle)
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)


def _run(machine: Machine, ask: str, verdicts: int, oracle: Ran) -> Ran:
    began = time.time()
    machine.start(time.monotonic() + SPAWN_S)
    deadline = time.monotonic() + DEADLINE_S
    while ask and "ready" not in machine.take_output():
        assert machine.wait_for_more(deadline), f"the program is not ready: {machine.console()}"
    health = _health(machine, verdicts, deadline) if verdicts else None
    if ask == "stop":
        machine.stop(deadline)
    elif ask == CTRL_ALT_DEL:
        machine.send_ctrl_alt_del()
    elif ask:
        machine.signal(int(ask), deadline)
    machine.wait_for_end(deadline)
    assert machine.exit
    (event,) = (event for event in machine.events if event.name == "exit")
    log = machine.output_log.read_bytes()
    sent = event.fields["stdout"], event.fields["stderr"]
    assert sum(sent) == len(log), f"{sum(sent)} bytes were sent and {len(log)} came"
    output, errors = _apart(log, sent[0], oracle)
    return Ran(
        output=output,
        errors=errors,
        status=machine.exit.code,
        health=health,
        began=began,
        ended=time.time(),
    )


def _health(machine: Machine, count: int, deadline: float) -> Health:
    while True:
        said = [event.fields for event in machine.events if event.name == "health"]
        verdicts = tuple(fields["status"] for fields in said if fields["status"] != "starting")
        if len(verdicts) >= count:
            return Health(verdicts=verdicts, code=said[-1]["code"], output=said[-1]["output"])
        assert machine.wait_for_more(deadline), f"only {verdicts}: {machine.console()}"


def _apart(log: bytes, length: int, oracle: Ran) -> tuple[bytes, bytes]:
    """Take the log, which holds both streams as they came, apart again; `length` bytes of it are
    standard output's. Where both wrote, that can only be done by knowing what to expect."""
    if 0 < length < len(log) and _interleaved(log, oracle.output, oracle.errors):
        return oracle.output, oracle.errors
    return log[:length], log[length:]


def _interleaved(mixed: bytes, one: bytes, other: bytes) -> bool:
    """Whether `mixed` is both, in pieces."""
    if len(mixed) != len(one) + len(other):
        return False
    taken = {0}  # how many bytes of `one` the part seen so far may hold
    for position, byte in enumerate(mixed):
        after = {n + 1 for n in taken if n < len(one) and one[n] == byte}
        after |= {n for n in taken if position - n < len(other) and other[position - n] == byte}
        if not after:
            return False
        taken = after
    return True
