"""What the tasks do that are a person's commands: each does its work and prints its result."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from doit import get_var

from fcbuild import lock as locks
from fcbuild import progress, spec
from fcbuild.errors import FcBuildError, SourceError, SpecError, StoreError, ToolMissing
from fcbuild.plan import KVM_HOST, TOOLCHAIN_LOCK, Plan
from fcbuild.series import X86_64
from fcbuild.store import Artifact
from fcbuild.tasks.action import quiet_pipe

if TYPE_CHECKING:
    from fcbuild.look.tree import Tree
    from fcbuild.tasks.project import Project
    from fcbuild.verify import Receipt
    from fcbuild.vmm.host import Host
    from fcbuild.vmm.machine import Vmm


def boot(project: Project, name: str) -> None:
    """Boot an image, run its checks, write the receipt and say how it went."""
    from fcbuild.verify import verify

    image = project.plan.specs.images[name]
    if name in project.skipped:
        raise FcBuildError(f"{name} cannot be built here: {project.skipped[name]}")
    kernel, rootfs = project.plan.kernel(image.kernel), project.plan.rootfs(name)
    vmm = vmm_for(project, image.arch)
    receipt_path = project.artifacts / "receipts" / f"{name}.json"
    how = f"KVM {vmm.kind}" if vmm.kind != "none" else "emulated"
    progress.say(f"booting {name} in {vmm.name} {vmm.version}, {how}")
    receipt = verify(
        image,
        kernel=project.store.need(kernel),
        rootfs=project.store.need(rootfs),
        vmm=vmm,
        receipt_path=receipt_path,
        instance=project.instance,
    )
    for recipe in (kernel, rootfs):
        state = "built" if project.states.get(str(recipe)) == "built" else "reused"
        print(f"{recipe!s:<24} {state}  {recipe.short}")
    for line in outcome(receipt):
        print(line)
    print(f"receipt   {os.path.relpath(receipt_path)}")


def lock(project: Project, check: bool) -> None:  # noqa: FBT001 (doit's way to pass it)
    """Ask what tags and packages are now; show what moved and, but for `check`, lock it."""
    from fcbuild.build import resolve

    if project.series is not None:
        lock_kernels(project, project.series, check=check)
        if not project.named:
            return
    with tempfile.TemporaryDirectory(prefix="lock-", dir=project.artifacts) as scratch:
        answer = resolve.ask(
            project.plan,
            project.store,
            project.pipeline.engine,
            names=project.wanted,
            toolchain=not project.named,
            scratch=Path(scratch),
        )
        moved = [
            *locks.moves(project.plan.specs.lock, answer.images),
            *locks.moves(project.plan.toolchain_lock, answer.toolchain),
        ]
        print("\n".join(moved) or "nothing moved")
        if moved and not check:
            locks.write(project.root / "images" / locks.FILE, answer.images)
            if not project.named:
                locks.write(TOOLCHAIN_LOCK, answer.toolchain)
            resolve.keep(Plan(spec.load(project.root)), project.store, answer)
    if answer.silent:
        raise SourceError(
            "\n".join(answer.silent), hint="what was locked before stays; try again later"
        )
    if moved and check:
        raise FcBuildError("the lock is not what it would be now", hint="doit lock moves it")


def lock_kernels(project: Project, series: Sequence[str], *, check: bool) -> None:
    """Ask archives what sources of kernels they have now; show what moved and pin it."""
    from fcbuild.build import pins

    workshop, moved = project.pipeline.workshop(), False
    for kernel in project.plan.specs.series(series):
        with tempfile.TemporaryDirectory(prefix="lock-", dir=project.artifacts) as scratch:
            old = pins.package(kernel)
            new = pins.newest(kernel, project.store, workshop, Path(scratch))
        if new == old:
            print(f"kernels/{kernel.series}: {old} is the newest")
            continue
        moved = True
        again = " (with other bytes)" if new.version == old.version else ""
        print(f"kernels/{kernel.series}: {old.debian} {old.version} -> {new.version}{again}")
        if not check:
            change = partial(pins.moved, old=old, new=new)
            pins.write(kernel.directory / "kernel.toml", change)
    if moved and check:
        raise FcBuildError("a pin is not what it would be now", hint="doit lock kernel= moves it")


def prepare_tests(project: Project) -> None:
    """Build what the boot tests stand on, where its progress can be seen and no test's
    deadline counts."""

    try:
        for name, kernel in project.plan.specs.kernels.items():
            if kernel.arch == X86_64 and (name != KVM_HOST or project.emulated):
                project.pipeline.kernel(name)
        project.pipeline.program(project.plan.agent)
        for name in project.plan.bootable():
            if not project.pipeline.unbuildable(name):
                project.pipeline.rootfs(name)
                project.pipeline.kernel(project.plan.specs.images[name].kernel)
    except ToolMissing as error:
        progress.say(f"tests that need it will be skipped: {error}")


def vmm_for(project: Project, arch: str) -> Vmm:
    """Return what boots images of an architecture here. Raises ToolMissing, SourceError."""
    from fcbuild.vmm import firecracker, virt
    from fcbuild.vmm.firecracker_machine import FirecrackerVmm

    if arch == X86_64:
        # First what is fetched, as that may take longest.
        binary = firecracker.find(project.pipeline.downloads)
        return FirecrackerVmm(kvm_host(project), binary)
    if project.kvm == "native":
        raise ToolMissing(
            f"kvm=native, but an image for {arch} cannot use this machine's KVM",
            hint="leave kvm= out to boot in QEMU, emulated",
        )
    return virt.find()


def kvm_host(project: Project) -> Host:
    """Return where Firecracker runs. Raises ToolMissing; says so when it is emulated."""
    from fcbuild.run import need
    from fcbuild.vmm import kvm
    from fcbuild.vmm.native import NativeHost

    trouble = kvm.trouble()
    if not project.emulated:
        if trouble:
            raise ToolMissing(
                f"kvm=native, but KVM cannot run guests here: {trouble}",
                hint="leave kvm= out to boot in an emulated KVM host",
            )
        return NativeHost()
    from fcbuild.build.program import BINARY
    from fcbuild.vmm.emulated import EmulatedHost

    why = f"no usable KVM ({trouble})" if trouble else "kvm=emulated"
    progress.say(f"{why}: booting in an emulated KVM host, slower")
    return EmulatedHost(
        qemu=need("qemu-system-x86_64", "qemu-system-x86"),
        kernel=project.store.need(project.plan.kernel(KVM_HOST)).file("vmlinux"),
        agent=project.store.need(project.plan.agent).file(BINARY["agent"]),
    )


def inspect(project: Project, as_json: bool) -> None:  # noqa: FBT001 (doit's way to pass it)
    """Show what is in a built root filesystem."""
    from fcbuild.look import choice, inspection

    if len(project.to_boot) != 1:
        raise SpecError([f"image={get_var('image')}: inspect looks into one image at a time"])
    artifact = choice.rootfs(project.to_boot[0], project.plan, project.store)
    with opened(project, artifact, reader=project.reader) as (tree,), quiet_pipe():
        inspection.show(artifact, tree, get_var("path"), as_json=as_json, out=sys.stdout)


def diff(project: Project, everything: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show how two root filesystems differ."""
    from fcbuild.look import choice, difference
    from fcbuild.vmm import kvm

    words = [get_var("a"), get_var("b")]
    if None in words:
        raise SpecError(
            ["diff compares two root filesystems: a=IMAGE b=IMAGE"],
            hint="each an image's name, or the beginning of a fingerprint",
        )
    a, b = (choice.rootfs(word, project.plan, project.store) for word in words)
    found = difference.Difference()
    if a.digests != b.digests:
        # Every file is read, and an emulated appliance takes minutes over that.
        reader = project.reader or ("debugfs" if kvm.trouble() else None)
        with opened(project, a, b, reader=reader) as trees:
            found = difference.compare(*map(difference.contents, trees))
    with quiet_pipe():
        difference.show(a, b, found, everything=everything, as_json=as_json, out=sys.stdout)


def reproduce(
    project: Project,
    kernels: bool,  # noqa: FBT001
    everything: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Build again what is built, and show how the bytes differ. Raises FcBuildError if so."""
    from fcbuild.reproduce import builds, verdict
    from fcbuild.vmm import kvm

    reader = project.reader or ("debugfs" if kvm.trouble() else None)
    found = []
    for one in builds.verdicts(
        project.pipeline,
        project.root,
        project.to_boot,
        kernels=kernels,
        at=project.artifacts,
        opened=lambda artifacts: opened(project, *artifacts, reader=reader),
    ):
        found.append(one)
        if not as_json:
            print(*verdict.lines(one, everything=everything), sep="\n", flush=True)
    if as_json:
        print(json.dumps([verdict.document(one) for one in found]))
    if moved := [one.what for one in found if not one.identical]:
        raise FcBuildError(f"not the same when built again: {', '.join(moved)}")


def opened(
    project: Project, *artifacts: Artifact, reader: str | None
) -> AbstractContextManager[list[Tree]]:
    """Open root filesystems to look into."""
    from fcbuild.look import readers

    return readers.opened(
        [artifact.file("rootfs.ext4") for artifact in artifacts],
        wanted=reader,
        engine=project.pipeline.engine,
        toolchain=project.pipeline.toolchain,
        logs=project.artifacts,
    )


def plan(project: Project, form: str) -> None:
    """Show what a build would make. form: text, json or matrix."""
    from fcbuild import preview

    images = project.wanted if project.named else None
    rows = preview.rows(project.plan, project.store, project.artifacts, images)
    with quiet_pipe():
        if form == "matrix":
            print(preview.matrix(project.plan, rows))
        elif form == "json":
            print(preview.document(rows))
        else:
            print("\n".join(preview.text(rows)))


def gc(project: Project, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Remove from the store what nobody needs."""
    from fcbuild import gc
    from fcbuild.vmm import firecracker

    limits = gc.policy(get_var("age"), get_var("size"))
    pinned = {sha256 for kernel in project.plan.specs.kernels.values() for sha256 in kernel.pinned}
    report = gc.collect(
        project.store,
        project.plan,
        limits,
        pinned={*pinned, firecracker.pinned()},
        engine=project.pipeline.engine,
        dry_run=dry_run,
    )
    with quiet_pipe():
        gc.show(report, limits, dry_run=dry_run, as_json=as_json, out=sys.stdout)


def fsck(project: Project, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Compare the store with what was built. Raises StoreError for what was found."""
    from fcbuild import fsck

    found = fsck.check(project.store, project.artifacts, dry_run=dry_run)
    with quiet_pipe():
        fsck.show(found, as_json=as_json, dry_run=dry_run, out=sys.stdout)
    if found:
        hint = "doit fsck repairs that" if dry_run else None
        things = "1 thing was" if len(found) == 1 else f"{len(found)} things were"
        raise StoreError(f"{things} not as built", hint=hint)


def outcome(receipt: Receipt) -> Iterator[str]:
    """Yield the lines that say how a boot went."""
    times = receipt.timings
    start = "QEMU's start" if receipt.vmm.kind == "none" else "InstanceStart"
    yield (
        f"boot      {times['start_to_exec']} ms from {start} to the entrypoint"
        f" ({times['start_to_init']} ms to PID 1), {times['total']} ms in all"
    )
    if "exec_to_ready" in times:
        yield f"ready     {times['exec_to_ready'] / 1000:.1f} s after exec"
    if "exec_to_healthy" in times:
        yield f"health    healthy after {times['exec_to_healthy'] / 1000:.1f} s"
    for check in receipt.checks:
        yield f"check     passed: {check['title']}: {check['detail']}"
    if receipt.exit:
        yield f"exit      {receipt.exit['code']} ({receipt.exit['reason']})"
