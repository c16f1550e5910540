"""Boot an image, run its checks, write the receipt: the proof that the image works."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fcbuild.errors import CheckFailed, FcBuildError, VmmError
from fcbuild.run import run
from fcbuild.spec import Check, HttpCheck, ImageSpec, LogCheck
from fcbuild.store import Artifact
from fcbuild.tables import MIB
from fcbuild.vmm.firecracker import Firecracker
from fcbuild.vmm.host import Host
from fcbuild.vmm.machine import Machine

SCHEMA = 1

# The deadline of image.toml is meant for hardware; an emulated host is several times slower.
EMULATED_FACTOR = 5

DEADLINE_MS = 30_000  # where image.toml says nothing

SPAWN_S = 60.0  # for the VMM to answer, an emulated host's own boot included
STOP_SLACK_S = 30.0  # for the VM's end, besides the image's own stop grace
RETRY_S = 0.05  # between two attempts of a check that has no event to wait for
ATTEMPT_S = 10.0  # for one attempt
MAX_BODY = 1 << 20  # bytes of an answer that are looked at
COPY_TIMEOUT_S = 600.0


@dataclass
class CheckResult:
    """How one check went. detail: what came, in words. at: when it passed, host clock."""

    check: Check
    ok: bool = False
    detail: str = "not tried"
    at: float = 0.0


@dataclass
class Receipt:
    """What was booted and what came of it; times in ms. Written as JSON, whatever the outcome."""

    image: str
    kernel: Artifact
    rootfs: Artifact
    vmm: Firecracker
    kvm: str
    ok: bool = False
    error: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, int] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    exit: dict[str, Any] | None = None

    def to_json(self) -> str:
        def made(artifact: Artifact, file: str) -> dict[str, str]:
            return {
                "name": artifact.name,
                "fingerprint": artifact.fingerprint,
                "digest": f"sha256:{artifact.digests[file]}",
            }

        document = {
            "schema": SCHEMA,
            "image": self.image,
            "ok": self.ok,
            "error": self.error,
            "kernel": made(self.kernel, "vmlinux"),
            "rootfs": made(self.rootfs, "rootfs.ext4"),
            "vmm": {"name": "firecracker", "version": self.vmm.version, "kvm": self.kvm},
            "events": self.events,
            "timings_ms": self.timings,
            "checks": self.checks,
            "exit": self.exit,
        }
        return json.dumps(document, indent=2) + "\n"


def verify(
    spec: ImageSpec,
    *,
    kernel: Artifact,
    rootfs: Artifact,
    host: Host,
    firecracker: Firecracker,
    receipt_path: Path,
) -> Receipt:
    """Boot the image and run its checks. The receipt is written whether they hold or not.

    Raises BootFailed, CheckFailed or another VmmError when the image does not hold what it must;
    the run directory is kept then, and the error names it.
    """
    receipt = Receipt(spec.name, kernel, rootfs, firecracker, host.kind)
    # Not below artifacts/: the path of a unix socket has at most 107 bytes.
    run_dir = Path(tempfile.mkdtemp(prefix="fcbuild-"))
    keep = False
    try:
        disk = run_dir / "rootfs.ext4"
        copy_disk(rootfs.file("rootfs.ext4"), disk)
        machine = Machine(
            host,
            firecracker=firecracker.path,
            kernel=kernel.file("vmlinux"),
            rootfs=disk,
            vcpus=spec.vcpus,
            memory_mib=spec.memory // MIB,
            run_dir=run_dir,
        )
        results = [CheckResult(check) for check in spec.checks]
        try:
            with machine:
                _run(spec, machine, host, results)
            receipt.ok = True
        except FcBuildError as error:
            keep = True
            if str(run_dir) not in error.message:
                error.message += f"\n  run directory, with all logs: {run_dir}"
            receipt.error = error.message
            raise
        finally:
            # An interrupted run says nothing about the image: an older receipt stands.
            if receipt.ok or receipt.error:
                _record(receipt, machine, results)
                _write(receipt_path, receipt.to_json())
    finally:
        if not keep:
            shutil.rmtree(run_dir, ignore_errors=True)
    return receipt


def copy_disk(source: Path, to: Path) -> None:
    """Make a private, sparse copy (a reflink where the file system has them): objects of the store
    are never booted read-write."""
    run(
        ["cp", "--reflink=auto", "--sparse=always", "--no-preserve=mode", source, to],
        what="copying the root filesystem",
        timeout_s=COPY_TIMEOUT_S,
    )
    to.chmod(0o600)


def _run(spec: ImageSpec, machine: Machine, host: Host, results: list[CheckResult]) -> None:
    machine.start(time.monotonic() + SPAWN_S)
    factor = EMULATED_FACTOR if host.kind == "emulated" else 1
    deadline = (
        time.monotonic() + factor * (DEADLINE_MS if spec.deadline is None else spec.deadline) / 1000
    )
    machine.wait_for("exec", deadline)
    _check(machine, results, deadline)
    stop_by = time.monotonic() + factor * (spec.stop_grace / 1000 + STOP_SLACK_S)
    # Without a word about it, a program that nothing is asked of is one that ends by itself.
    expected = 0 if spec.expect_exit is None and not spec.checks else spec.expect_exit
    if expected is not None:
        machine.wait_for_end(deadline)
        _check_exit(spec, expected, machine)
    else:
        machine.stop(stop_by)
        if "stopping" not in machine.timings.stages:
            # A service that ended before it was told to.
            _check_exit(spec, 0, machine)


def _check(machine: Machine, results: list[CheckResult], deadline: float) -> None:
    """Repeat the checks that have not passed until all have. Raises CheckFailed, BootFailed."""
    again = 0.0  # when to make the next attempt of what has no event to wait for
    while True:
        lines = machine.take_output()
        due = time.monotonic() >= again
        for result in results:
            if not result.ok and (due or isinstance(result.check, LogCheck)):
                _try(machine, result, lines, deadline)
        missing = [result for result in results if not result.ok]
        if not missing:
            return
        if machine.ended:
            break
        if due:
            again = time.monotonic() + RETRY_S
        retried = any(isinstance(result.check, HttpCheck) for result in missing)
        until = min(deadline, again) if retried else deadline
        if not machine.wait_for_more(until) and time.monotonic() >= deadline:
            break
    how = "in time"
    if machine.ended:
        how = (
            f"before the program ended with status {machine.exit.code}"
            if machine.exit
            else ("before the VM ended")
        )
    raise CheckFailed(
        "\n".join(
            [f"check failed {how}: {result.check}: {result.detail}" for result in missing]
            + [f"  | {line}" for line in machine.console()]
            + [f"  run directory, with all logs: {machine.run_dir}"]
        ),
        hint=f"the program's output is in {machine.output_log}",
    )


def _try(machine: Machine, result: CheckResult, lines: list[str], deadline: float) -> None:
    if isinstance(result.check, LogCheck):
        found = next((line for line in lines if re.search(result.check.pattern, line)), None)
        result.ok, result.detail = found is not None, "no such line in the program's output"
        if found is not None:
            result.detail = f"found: {found[:200]}"
    elif isinstance(result.check, HttpCheck) and not machine.ended:
        port = result.check.port
        result.ok, result.detail = http_get(result.check, lambda: machine.forward(port, deadline))
    if result.ok:
        result.at = time.monotonic()


def http_get(check: HttpCheck, connect: Callable[[], Any]) -> tuple[bool, str]:
    """Make one request over a connection to the guest; return whether it is as expected, and why.

    The answer comes from the guest and may be anything: time and size are bounded.
    """
    connection = http.client.HTTPConnection("guest", check.port, timeout=ATTEMPT_S)
    late = threading.Event()

    def give_up() -> None:
        # A time limit of the socket's starts anew with each byte that comes.
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(ATTEMPT_S, give_up)
    try:
        connection.sock = sock = connect()
        sock.settimeout(ATTEMPT_S)
        timer.start()
        connection.request("GET", check.path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(MAX_BODY)
    except (OSError, http.client.HTTPException, VmmError) as error:
        return (
            False,
            f"expected status {check.status}, got no answer: {error or type(error).__name__}",
        )
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():
        return False, f"expected status {check.status}, got no whole answer in {ATTEMPT_S:g} s"
    if answer.status != check.status:
        return False, f"expected status {check.status}, got {answer.status}"
    if check.contains and check.contains.encode() not in body:
        shown = body[:80].decode("utf-8", "replace")
        return False, f"expected a body with {check.contains!r}, got {shown!r}"
    return True, f"status {answer.status}, {len(body)} bytes"


def _check_exit(spec: ImageSpec, expected: int, machine: Machine) -> None:
    assert machine.exit is not None
    if machine.exit.code != expected:
        raise CheckFailed(
            f"{spec.name}: expected the program to end with status {expected}, "
            f"got {machine.exit.code}\n  run directory, with all logs: {machine.run_dir}",
            hint=f"the program's output is in {machine.output_log}",
        )


def _record(receipt: Receipt, machine: Machine, results: list[CheckResult]) -> None:
    times, stages = machine.timings, machine.timings.stages
    passed = [result.at for result in results if result.ok]
    spans = {
        "spawn": (times.begun, times.api),
        "configure": (times.api, times.configured),
        "start_to_init": (times.started, stages.get("init", 0.0)),
        "start_to_exec": (times.started, stages.get("exec", 0.0)),
        "start_to_first_check": (times.started, min(passed, default=0.0)),
        "total": (times.begun, time.monotonic()),
    }
    receipt.timings = {
        name: round((end - start) * 1000) for name, (start, end) in spans.items() if start and end
    }
    receipt.events = [
        {"event": event.name, "t_ns": event.t, **event.fields} for event in machine.events
    ]
    receipt.checks = [
        {
            "title": str(result.check),
            **_describe(result.check),
            "ok": result.ok,
            "detail": result.detail,
        }
        for result in results
    ]
    if machine.exit:
        stopped = "stopping" in stages
        receipt.exit = {
            "code": machine.exit.code,
            "signal": machine.exit.signal,
            "reason": "stopped" if stopped else "signal" if machine.exit.signal else "exited",
        }


def _describe(check: Check) -> dict[str, Any]:
    if isinstance(check, LogCheck):
        return {"log": check.pattern}
    return {"http" if isinstance(check, HttpCheck) else "tcp": asdict(check)}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
