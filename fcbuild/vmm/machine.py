"""One microVM: owns its process, sockets and run directory from spawn to end."""

from __future__ import annotations

import queue
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, NoReturn, Protocol, Self, cast, get_args

from fcbuild.errors import BootTimeout, GuestExited, GuestPanic, VmmError
from fcbuild.recipes import BOOT_CONTRACT
from fcbuild.vmm.config import MicroVm
from fcbuild.vmm.host import KvmKind, VmmProcess
from fcbuild.vmm.link import Broken, Dial, Ended, Event, Line, Link

OUTPUT_LINES = 100_000  # of the program's output, kept for whoever asks; the log has them all
CONSOLE_LINES = 15  # of the console, in an error
CONSOLE_BYTES = 1 << 16  # from its end, to find them
CONNECT_S = 5.0  # to reach a port of the guest
DYING_S = 1.0  # for a VM to end, when a failure may come from its end

# The stages of the boot contract that a guest goes through, in order.
STAGES = ("kernel", "init", "mounted", "exec", "ready", "stopping", "exit", "end")

HealthStatus = Literal["starting", "healthy", "unhealthy"]


@dataclass(frozen=True)
class Exit:
    """How the program ended. code: 0-255; signal: what ended it, or 0; oom: whether the kernel
    did, for want of memory."""

    code: int
    signal: int
    oom: bool = False

    def __str__(self) -> str:
        return f"status {self.code}{' (out of memory)' if self.oom else ''}"


@dataclass(frozen=True)
class Health:
    """What the guest said last of the image's health check.

    failing: failures in a row. code: the last check's exit status, -1 for one that took too long,
    None before there was one. output: the end of what it wrote. at: seconds on the host's clock.
    """

    status: HealthStatus
    failing: int
    code: int | None
    output: str
    at: float

    def __str__(self) -> str:
        if self.code is None:
            return f"{self.status}, no check has ended yet"
        how = "took too long" if self.code == -1 else f"ended with status {self.code}"
        lines = [f"  | {line}" for line in printable(self.output)]
        failing = f", {self.failing} failed in a row" if self.failing else ""
        return "\n".join([f"{self.status}{failing}; the last check {how}", *lines])


@dataclass
class Timings:
    """Milestones, in seconds on the host's monotonic clock."""

    begun: float = 0.0
    api: float = 0.0  # Firecracker answers
    configured: float = 0.0
    started: float = 0.0  # InstanceStart was asked for
    healthy: float = 0.0  # the health check said so for the first time
    stages: dict[str, float] = field(default_factory=dict)


class Machine(ABC):
    """A microVM, whichever VMM runs it. A context manager: leaving it ends whatever still runs.

    `run_dir` is private (0700) and holds sockets and logs; its path must be short enough for a
    unix socket. Drives that the guest writes to have to be private copies. title: the VMM, in
    messages. log: what the VMM itself writes. dial: how a port of the guest is reached.
    """

    def __init__(self, title: str, *, run_dir: Path, log: Path, dial: Dial) -> None:
        self.title = title
        self.run_dir = run_dir
        self.console_log = run_dir / "console.log"
        self.output_log = run_dir / "output.log"
        self.vmm_log = log
        self.timings = Timings()
        self.events: list[Event] = []
        self._output: deque[str] = deque(maxlen=OUTPUT_LINES)
        self.exit: Exit | None = None
        self.health: Health | None = None
        self.version = ""
        self._ended = False
        self._fail: str | None = None
        self._link = Link(run_dir / "v.sock", self.output_log, dial)
        self._process: VmmProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def stage(self) -> str:
        """The last stage that the guest reported."""
        seen = [stage for stage in STAGES if stage in self.timings.stages]
        return seen[-1] if seen else "kernel"

    @property
    def complaint(self) -> str | None:
        """What PID 1 said it failed at, or what it did against the boot contract."""
        return self._fail

    def start(self, deadline: float) -> None:
        """Spawn the VMM and start the guest. deadline: on time.monotonic().

        Raises ApiError for a call that is refused, BootFailed or another VmmError for the rest.
        """
        self.timings.begun = time.monotonic()
        self._process = self._spawn()
        self._link.watch(self._process.pid)
        self._begin(deadline)

    @abstractmethod
    def send_ctrl_alt_del(self) -> None:
        """Press Ctrl-Alt-Del in the guest, which PID 1 takes for a stop; a kernel without a
        keyboard does not hear it. Raises VmmError."""

    @abstractmethod
    def _spawn(self) -> VmmProcess:
        """Start the VMM's process."""

    @abstractmethod
    def _begin(self, deadline: float) -> None:
        """Have the VMM start the guest; set the timings up to `started`, and the version."""

    def wait_for(self, stage: str, deadline: float) -> None:
        """Wait for a stage. Raises BootTimeout, GuestPanic or GuestExited with the evidence."""
        while stage not in self.timings.stages:
            if self._ended or self._fail:
                self._raise_end(f"waiting for {stage!r}")
            if not self._take(deadline):
                self._raise(BootTimeout, f"no {stage!r} event came in time")

    def wait_for_health(self, deadline: float) -> Health:
        """Wait until the image's check has found it healthy or unhealthy. Raises BootTimeout,
        GuestPanic, or GuestExited when the program or the VM ends before."""
        while self.health is None or self.health.status == "starting":
            if self._ended or self._fail or self.exit:
                self._raise_end("waiting for the health check")
            if not self._take(deadline):
                last = self.health or "the guest does not say"
                self._raise(BootTimeout, f"not healthy in time: {last}")
        return self.health

    def wait_for_more(self, deadline: float) -> bool:
        """Wait until the guest says anything, and take all that it has said; return False at the
        deadline or after its end."""
        if self._ended or not self._take(deadline):
            return False
        for _ in range(OUTPUT_LINES):  # a guest that never pauses must not keep us here
            if not self._take(0.0):
                break
        return True

    def take_output(self) -> list[str]:
        """Return the lines that the program printed since the last call, OUTPUT_LINES at most."""
        lines = list(self._output)
        self._output.clear()
        return lines

    @property
    def ended(self) -> bool:
        """Whether the VM is gone, and everything that it sent has been read."""
        return self._ended

    def forward(self, port: int, deadline: float) -> socket.socket:
        """Connect to a TCP port in the guest. Raises ConnectionError, VmmError."""
        return self._link.forward(port, _left(deadline))

    def stop(self, deadline: float) -> None:
        """Ask PID 1 to stop the program and wait for the VM's end. Raises BootFailed, VmmError."""
        if not self._ended and "exit" not in self.timings.stages:
            try:
                self._link.control("stop", _left(deadline))
            except VmmError:
                # It may have ended by itself a moment ago; only if it has not is this an error.
                self._take_until(time.monotonic() + DYING_S)
                if not self._ended:
                    raise
        self.wait_for_end(deadline)

    def signal(self, number: int, deadline: float) -> None:
        """Send the program a signal. Raises VmmError when PID 1 cannot."""
        self._link.control(f"signal {number}", _left(deadline))

    def wait_for_end(self, deadline: float) -> None:
        """Wait until the VM is gone. Raises BootTimeout; GuestPanic if it ended by a panic."""
        while not self._ended:
            if not self._take(deadline):
                self._raise(BootTimeout, "the VM did not end in time")
        if self.exit is None or self._fail:
            self._raise_end("waiting for the end")
        assert self._process is not None
        status = self._process.wait(_left(deadline))
        if status:
            self._raise(GuestExited, f"{self.title} ended with status {status}")

    def cut(self) -> None:
        """End the process, from another thread: who waits for the guest sees its end."""
        if self._process:
            self._process.end()

    def end(self) -> None:
        """End the process, at once; safe to call at any time and twice."""
        self.cut()
        self._link.close()

    def console(self) -> list[str]:
        """Return the last lines of the guest's console."""
        return last_lines(self.console_log) or last_lines(self.vmm_log)

    def _take(self, deadline: float) -> bool:
        """Handle the next item from the guest; return False when none came by the deadline."""
        if self._ended:
            return False
        try:
            item = self._link.items.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if isinstance(item, Event):
            self._event(item)
        elif isinstance(item, Line):
            self._output.append(item.text)
        elif isinstance(item, Broken):
            self._break(item.what)
        elif isinstance(item, Ended):
            self._ended = True
        return True

    def _take_until(self, deadline: float) -> None:
        while self._take(deadline):
            pass

    def _event(self, event: Event) -> None:
        self.events.append(event)
        self.timings.stages.setdefault(event.name, event.at)
        if event.name == "init":
            if (theirs := event.fields.get("contract")) != BOOT_CONTRACT:
                self._break(
                    f"it speaks version {theirs!r}, this fcbuild version {BOOT_CONTRACT}; "
                    "build the image again"
                )
        elif event.name == "exit":
            self.exit = read_exit(event)
            if self.exit is None:
                self._break("an exit event without code, signal and oom")
        elif event.name == "health":
            health = read_health(event)
            if health is None:
                self._break("a health event without a status")
            else:
                self.health = health
                if health.status == "healthy" and not self.timings.healthy:
                    self.timings.healthy = event.at
        elif event.name == "fail":
            stage, reason, error = (
                _shown(event.fields.get(key)) for key in ("stage", "reason", "error")
            )
            self._fail = f"PID 1 gave up at {stage} ({reason}): {error}"

    def _break(self, what: str) -> None:
        self._fail = self._fail or f"the guest broke the boot contract: {what}"

    def _raise_end(self, doing: str) -> NoReturn:
        console = self.console()
        trouble = self._process.trouble() if self._process else None
        if panic := next((line for line in console if "Kernel panic" in line), None):
            self._raise(GuestPanic, f"the guest panicked while {doing}: {panic.strip()}")
        if self._fail:
            self._raise(GuestExited, self._fail)
        if self.exit:
            self._raise(GuestExited, f"the program ended with {self.exit}, {doing}")
        self._raise(GuestExited, f"the VM ended while {doing}{f': {trouble}' if trouble else ''}")

    def _raise(
        self, kind: type[BootTimeout] | type[GuestExited] | type[GuestPanic], what: str
    ) -> NoReturn:
        raise kind(what, stage=self.stage, console=self.console(), run_dir=self.run_dir)


class Vmm(Protocol):
    """What boots microVMs here. name, version: of the VMM; kvm: what it runs them on."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def kind(self) -> KvmKind: ...

    def machine(self, vm: MicroVm, run_dir: Path) -> Machine:
        """Return a microVM that is not started yet. Raises VmmError for what cannot be."""


def last_lines(path: Path, count: int = CONSOLE_LINES) -> list[str]:
    """Return the last lines of a log, made printable: a guest's console may hold anything."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - CONSOLE_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    kept = printable(text)
    for number, line in enumerate(kept):
        if "Kernel panic" in line:
            # What follows, a call trace, may be longer than what is shown, and says less than what
            # came before.
            return kept[max(0, number - 2 * count // 3) :][:count]
    return kept[-count:]


def printable(text: str) -> list[str]:
    """Return the lines that hold anything, without what a terminal would obey."""
    lines = (
        "".join(c for c in line if c.isprintable() or c == "\t").rstrip()
        for line in text.splitlines()
    )
    return [line for line in lines if line]


def read_exit(event: Event) -> Exit | None:
    """Return what an exit event says, or None when it does not follow the contract."""
    code, signal, oom = (event.fields.get(key) for key in ("code", "signal", "oom"))
    if type(code) is int and type(signal) is int and type(oom) is bool and 0 <= code <= 255:
        return Exit(code, signal, oom)
    return None


def read_health(event: Event) -> Health | None:
    """Return what a health event says, or None when it does not follow the contract."""
    status, failing = event.fields.get("status"), event.fields.get("failing")
    code, output = event.fields.get("code"), event.fields.get("output", "")
    if (
        status in get_args(HealthStatus)
        and type(failing) is int
        and (code is None or type(code) is int)
        and isinstance(output, str)
    ):
        return Health(cast(HealthStatus, status), failing, code, output, event.at)
    return None


def _shown(value: object) -> str:
    """Return a value that the guest sent in one printable line."""
    return " ".join(printable(str(value)))


def _left(deadline: float) -> float:
    return min(CONNECT_S, max(0.1, deadline - time.monotonic()))
