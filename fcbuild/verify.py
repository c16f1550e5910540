"""Boot an image, run its checks, write the receipt: the proof that the image works."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fcbuild import interruption, progress, second_boot
from fcbuild.checks import attempt
from fcbuild.errors import CheckFailed, FcBuildError
from fcbuild.instance import Instance
from fcbuild.microvm import assemble, remove_drives
from fcbuild.second_boot import SecondBoot
from fcbuild.series import KERNEL_FILE
from fcbuild.spec import Check, HttpCheck, ImageSpec, LogCheck
from fcbuild.store import Artifact
from fcbuild.tables import MIB
from fcbuild.vmm.machine import Exit, Machine, Vmm, printable

SCHEMA = 1

# The deadline of image.toml is meant for hardware; what is emulated is several times slower.
EMULATED_FACTOR = 5

DEADLINE_MS = 30_000  # where image.toml says nothing

SPAWN_S = 60.0  # for the VMM to answer, an emulated host's own boot included
STOP_SLACK_S = 30.0  # for the VM's end, besides the image's own stop grace
RETRY_S = 0.05  # between two attempts of a check that has no event to wait for


@dataclass
class CheckResult:
    """How one check went. detail: what came, in words. at: when it passed, host clock."""

    check: Check
    ok: bool = False
    detail: str = "not tried"
    at: float = 0.0


@dataclass
class Receipt:
    """What was booted and what came of it; times in ms. Written as JSON, whatever the outcome.

    instance: the names of what the instance's document set, never its values. second_boot: of a
    boot that failed before anybody in the guest could say why.
    """

    image: str
    arch: str
    kernel: Artifact
    rootfs: Artifact
    vmm: Vmm
    instance: list[str] | None = None
    ok: bool = False
    error: str | None = None
    second_boot: SecondBoot | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, int] = field(default_factory=dict)
    health: dict[str, Any] | None = None
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
            "second_boot": self.second_boot
            and {"outcome": self.second_boot.outcome, "console": list(self.second_boot.console)},
            "kernel": made(self.kernel, KERNEL_FILE[self.arch]),
            "rootfs": made(self.rootfs, "rootfs.ext4"),
            "arch": self.arch,
            "vmm": {"name": self.vmm.name, "version": self.vmm.version, "kvm": self.vmm.kind},
            "instance": self.instance,
            "events": self.events,
            "timings_ms": self.timings,
            "health": self.health,
            "checks": self.checks,
            "exit": self.exit,
        }
        return json.dumps(document, indent=2) + "\n"


def verify(
    spec: ImageSpec,
    *,
    kernel: Artifact,
    rootfs: Artifact,
    vmm: Vmm,
    receipt_path: Path,
    instance: Instance | None = None,
) -> Receipt:
    """Boot the image and run its checks. The receipt is written whether they hold or not. A boot
    that fails with no word from the guest is repeated once, with its kernel's messages on.

    Raises BootFailed, CheckFailed or another VmmError when the image does not hold what it must;
    the run directory is kept then, without the private drives, and the error names
    it. Raises SpecError for an instance that does not go with the image.
    """
    receipt = Receipt(spec.name, spec.arch, kernel, rootfs, vmm)
    if instance is not None:
        receipt.instance = instance.names()
    # Not below artifacts/: the path of a unix socket has at most 107 bytes.
    run_dir = Path(tempfile.mkdtemp(prefix="fcbuild-"))
    keep = False
    try:
        make = partial(assemble, spec, kernel=kernel, rootfs=rootfs, place=vmm, instance=instance)
        vm = make(run_dir=run_dir)
        machine = vmm.machine(vm, run_dir)
        results = [CheckResult(check) for check in spec.checks]
        try:
            with machine:
                _run(spec, rootfs.facts, machine, vmm, results)
            receipt.ok = True
        except FcBuildError as error:
            remove_drives(vm, run_dir)
            if str(run_dir) not in error.message:
                error.message += f"\n  run directory, with all logs: {run_dir}"
            if second_boot.helps(error, machine):
                progress.say(f"{spec.name}: it failed; booting once more for the kernel's messages")
                receipt.second_boot = second_boot.watch(
                    lambda directory: make(run_dir=directory),
                    vmm,
                    run_dir=run_dir,
                    spawn_s=SPAWN_S,
                    seconds=min(
                        _factor(vmm) * second_boot.DEADLINE_S,
                        _seconds(spec, rootfs.facts, vmm),
                    ),
                )
                error.message += f"\n{receipt.second_boot.text()}"
            keep = True
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


def expected_exit(spec: ImageSpec, *, health: bool) -> int | None:
    """Return the status that the program has to end with by itself; None for a service, which is
    stopped. Where nothing is said, a program that nothing is asked of ends by itself."""
    if spec.expect_exit is None and not spec.checks and not health and spec.init is None:
        return 0
    return spec.expect_exit


def seconds_for(spec: ImageSpec, *, health_ms: int, factor: int) -> float:
    """Return how long everything asked for may take. health_ms: the longest that the health check
    can take to a verdict; its times are the guest's clock's, which no emulation slows down."""
    if spec.deadline is not None:
        return factor * spec.deadline / 1000
    return (factor * DEADLINE_MS + health_ms) / 1000


def _factor(vmm: Vmm) -> int:
    return 1 if vmm.kind == "native" else EMULATED_FACTOR


def _seconds(spec: ImageSpec, facts: Mapping[str, Any], vmm: Vmm) -> float:
    return seconds_for(spec, health_ms=facts.get("health_ms", 0), factor=_factor(vmm))


def _run(
    spec: ImageSpec,
    facts: Mapping[str, Any],
    machine: Machine,
    vmm: Vmm,
    results: list[CheckResult],
) -> None:
    machine.start(time.monotonic() + SPAWN_S)
    with interruption.ended(machine.cut):
        health = bool(facts.get("health"))
        expected = expected_exit(spec, health=health)
        deadline = time.monotonic() + _seconds(spec, facts, vmm)
        machine.wait_for("exec", deadline)
        if spec.ready:
            machine.wait_for("ready", deadline)
        if health and expected is None:  # a job may well be done before its first check
            _check_health(spec, machine, deadline)
        _check(machine, results, deadline)
        if expected is not None:
            machine.wait_for_end(deadline)
            _check_exit(spec, expected, machine)
            return
        machine.stop(time.monotonic() + _factor(vmm) * (spec.stop_grace / 1000 + STOP_SLACK_S))
        if "stopping" not in machine.timings.stages:
            # A service that ended before it was told to.
            _check_exit(spec, 0, machine)
        elif spec.init is not None:
            _check_shutdown(spec, machine)


def _check_health(spec: ImageSpec, machine: Machine, deadline: float) -> None:
    health = machine.wait_for_health(deadline)
    if health.status != "healthy":
        raise CheckFailed(
            f"{spec.name} is {health}\n  run directory, with all logs: {machine.run_dir}",
            hint=f"the program's output is in {machine.output_log}",
        )


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
        retried = not all(isinstance(result.check, LogCheck) for result in missing)
        until = min(deadline, again) if retried else deadline
        if not machine.wait_for_more(until) and time.monotonic() >= deadline:
            break
    how = "in time"
    if machine.ended:
        how = (
            f"before the program ended with {machine.exit}"
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
            result.detail = f"found: {' '.join(printable(found[:200]))}"
    elif not machine.ended:
        port = result.check.port
        result.ok, result.detail = attempt(result.check, lambda: machine.forward(port, deadline))
    if result.ok:
        result.at = time.monotonic()


def _check_exit(spec: ImageSpec, expected: int, machine: Machine) -> None:
    assert machine.exit is not None
    if machine.exit.code != expected:
        hint = f"the program's output is in {machine.output_log}"
        if machine.exit.oom:
            hint = f"the machine has {spec.memory // MIB} MiB: [machine] memory in image.toml"
        raise CheckFailed(
            f"{spec.name}: expected the program to end with status {expected}, got {machine.exit}\n"
            f"  run directory, with all logs: {machine.run_dir}",
            hint=hint,
        )


def _check_shutdown(spec: ImageSpec, machine: Machine) -> None:
    """An init of the image's own that was told to stop shuts down by itself, or it is cut off."""
    assert machine.exit is not None
    if machine.exit.signal:
        raise CheckFailed(
            f"{spec.name}: {spec.init} did not shut down within {spec.stop_grace / 1000:g} s\n"
            f"  run directory, with all logs: {machine.run_dir}",
            hint="boot.stop_grace in image.toml gives it more time",
        )


def _record(receipt: Receipt, machine: Machine, results: list[CheckResult]) -> None:
    times, stages = machine.timings, machine.timings.stages
    passed = [result.at for result in results if result.ok]
    spans = {
        "spawn": (times.begun, times.api),
        "configure": (times.api, times.configured),
        "start_to_init": (times.started, stages.get("init", 0.0)),
        "start_to_exec": (times.started, stages.get("exec", 0.0)),
        "exec_to_ready": (stages.get("exec", 0.0), stages.get("ready", 0.0)),
        "exec_to_healthy": (stages.get("exec", 0.0), times.healthy),
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
    if health := machine.health:
        receipt.health = {
            "status": health.status,
            "failing": health.failing,
            "code": health.code,
            "output": health.output,
        }
    if machine.exit:
        receipt.exit = {
            "code": machine.exit.code,
            "signal": machine.exit.signal,
            "reason": _reason(machine.exit, stopped="stopping" in stages),
        }


def _reason(how: Exit, *, stopped: bool) -> str:
    if how.oom:
        return "out of memory"
    if stopped:
        return "stopped"
    return "signal" if how.signal else "exited"


def _describe(check: Check) -> dict[str, Any]:
    if isinstance(check, LogCheck):
        return {"log": check.pattern}
    return {"http" if isinstance(check, HttpCheck) else "tcp": check._asdict()}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
