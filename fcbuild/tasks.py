"""doit's tasks: the only module, with reporter.py, that knows doit.

    _toolchain -+-> _init -----+
                |              +-> rootfs:NAME --+-> build
    _image:NAME ---------------+                 +-> boot
                +-> kernel:NAME -----------------+

An edge that is only needed to build is a `setup` edge: a stored rootfs asks for neither engine nor
toolchain. One that always holds is a `task_dep`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from doit import get_var
from doit.exceptions import TaskFailed

from fcbuild import digests, lock, progress, spec
from fcbuild.digests import Digests
from fcbuild.errors import FcBuildError, SourceError, SpecError, StoreError, did_you_mean
from fcbuild.plan import KVM_HOST, PRODUCTS, TOOLCHAIN_LOCK, Kind, Plan, Recipe
from fcbuild.store import Artifact, State, Store, layout, link, links_to

if TYPE_CHECKING:
    from fcbuild.build.pipeline import Pipeline
    from fcbuild.instance import Instance
    from fcbuild.look.tree import Tree
    from fcbuild.verify import Receipt
    from fcbuild.vmm.host import Host

Task = dict[str, Any]

# Variables of the command line, NAME=VALUE. doit would ignore, without a word, others.
VARIABLES = {
    "image": "which images: names and globs, separated by commas",
    "kvm": "native or emulated: where Firecracker runs",
    "instance": "a TOML file with one VM's own values, for boot",
    "path": "what to look at in an image: a directory or a file",
    "a": "an image, or the beginning of a root filesystem's fingerprint, to compare",
    "b": "the same, to compare it with",
    "reader": "guestfs or debugfs: what reads a root filesystem",
    "kernel": "yes or no: whether reproduce builds the image's kernel too",
    "age": "for gc: how long to keep what was not used, 30d when left out; 12h, 0",
    "size": "for gc: how large the store may be, 20GiB when left out",
}
KVM_CHOICES = ("native", "emulated")
READERS = ("guestfs", "debugfs")
YES_NO = ("yes", "no")

# Options of tasks, as doit describes them.
JSON = {"name": "json", "long": "json", "type": bool, "default": False, "help": "for machines"}
CHECK = {
    "name": "check",
    "long": "check",
    "type": bool,
    "default": False,
    "help": "only show what moved; fail when something did",
}
MATRIX = {
    "name": "matrix",
    "long": "matrix",
    "type": bool,
    "default": False,
    "help": "what is missing, for the matrix of a CI job",
}
DRY_RUN = {
    "name": "dry_run",
    "long": "dry-run",
    "type": bool,
    "default": False,
    "help": "only show what would be done",
}
ALL = {"name": "all", "long": "all", "type": bool, "default": False, "help": "every line"}

_TEST_PROCESSES = 2

# doit would collect what a task prints until it ends, and mix up tasks that run side by side.
_OPEN: Task = {"io": {"capture": False}, "verbosity": 2}


class Project:
    """A checkout: its specs, its store, and the tasks that follow from them.

    Made on each run of doit, `doit list` too, so it reads image.toml, kernel.toml and Dockerfiles
    and nothing else; contexts are hashed and engines asked only by the tasks that need it.
    """

    def __init__(self, root: Path, *, default_image: str) -> None:
        check_variables(sys.argv[1:])
        self.root = root
        self.artifacts = root / "artifacts"
        store = os.environ.get("FCBUILD_STORE")
        self.store = Store(layout.place(store) if store else self.artifacts / "store")
        self.digests = Digests(self.artifacts / digests.FILE)
        barred = (self.artifacts, self.store.root)
        self.plan = Plan(spec.load(root), digests=self.digests, barred=barred)
        # What happened to each product in this run: built, or reused.
        self.states: dict[str, State] = {}
        self.skipped: dict[str, str] = {}
        wanted = get_var("image")
        images = self.plan.specs.images
        self.wanted = spec.select(wanted, images, what="image")
        self.named = wanted is not None
        self.to_boot = self.wanted if self.named else [default_image]
        # Whether nothing may be built that is not locked.
        self.strict = lock.insisted(os.environ)
        self.kvm = choice_of("kvm", KVM_CHOICES)
        self.reader = choice_of("reader", READERS)
        self.with_kernel = choice_of("kernel", YES_NO) != "no"
        self.instance = self.read_instance(get_var("instance"))
        # A FROM that cannot be is a mistake in a spec, so it is reported before anything runs.
        for name in images:
            self.plan.upon(name)

    def read_instance(self, path: str | None) -> Instance | None:
        """Read the instance's document, if one is named. Raises SpecError."""
        if path is None:
            return None
        from fcbuild import instance

        if len(self.to_boot) > 1:
            raise SpecError(
                [f"instance={path} is for one VM, not for {', '.join(self.to_boot)}"],
                hint="name one image: image=NAME",
            )
        return instance.load(Path(path))

    @cached_property
    def pipeline(self) -> Pipeline:
        from fcbuild.build.engine import Docker
        from fcbuild.build.pipeline import Pipeline

        return Pipeline(self.plan, self.store, Docker(), strict=self.strict)

    @cached_property
    def emulated(self) -> bool:
        """Whether Firecracker will run in an emulated KVM host."""
        from fcbuild.vmm import kvm

        return self.kvm == "emulated" or (self.kvm is None and kvm.trouble() is not None)

    # The tasks, in the order of `doit list`.

    def build(self) -> Task:
        images = [name for name in self.wanted if name in self.plan.bootable()]
        bases = [name for name in self.wanted if name not in images] if self.named else []
        kernels = {self.plan.specs.images[name].kernel for name in images}
        return {
            "actions": None,
            "task_dep": [
                *(f"kernel:{name}" for name in sorted(kernels)),
                *(f"rootfs:{name}" for name in images),
                *(f"_image:{name}" for name in bases),
            ],
        }

    def boot(self) -> Task:
        bases = [name for name in self.to_boot if name not in self.plan.bootable()]
        if bases:
            return {"actions": [partial(act, self.refuse, bases)], "uptodate": [False], **_OPEN}
        kernels = {self.plan.specs.images[name].kernel for name in self.to_boot}
        host = [f"kernel:{KVM_HOST}", "_agent"] if self.emulated else []
        return {
            "actions": [partial(act, self.verify, name) for name in self.to_boot],
            "task_dep": [
                *(f"kernel:{name}" for name in sorted(kernels)),
                *host,
                *(f"rootfs:{name}" for name in self.to_boot),
            ],
            "uptodate": [False],
            **_OPEN,
        }

    def kernels(self) -> Iterator[Task]:
        for name, kernel in self.plan.specs.kernels.items():
            yield self.product(
                "kernel",
                name,
                partial(self.plan.kernel, name),
                partial(self.make_kernel, name),
                setup=["_toolchain"],
                doc=kernel.description,
            )

    def rootfses(self) -> Iterator[Task]:
        for name in self.plan.bootable():
            yield self.product(
                "rootfs",
                name,
                partial(self.plan.rootfs, name),
                partial(self.make_rootfs, name),
                setup=["_toolchain", "_init", f"_image:{name}"],
                doc=self.plan.specs.images[name].description,
                image=name,
            )

    def images(self) -> Iterator[Task]:
        for name, image in self.plan.specs.images.items():
            yield {
                "name": name,
                "doc": f"container image: {image.description}",
                "actions": [partial(act, self.make_image, name)],
                "setup": [f"_image:{up}" for up in self.plan.upon(name)],
                **_OPEN,
                "uptodate": [partial(asked, partial(self.image_held, name))],
            }

    def toolchain(self) -> Task:
        return {
            "actions": [partial(act, lambda: self.pipeline.toolchain() and None)],
            **_OPEN,
            "uptodate": [partial(asked, lambda: self.held(self.plan.toolchain))],
        }

    def program(self, recipe: Callable[[], Recipe]) -> Task:
        def make() -> Task:
            _, state = self.pipeline.program(recipe())
            return self.made(recipe(), state)

        return {
            "actions": [partial(act, make)],
            "setup": ["_toolchain"],
            **_OPEN,
            "uptodate": [partial(asked, lambda: self.store.find(recipe()) is not None)],
        }

    def lock(self, *, check: bool) -> Task:
        actions = [partial(act, self.move_lock, check)]
        return {"actions": actions, "uptodate": [False], **_OPEN}

    def show_plan(self, *, as_json: bool, matrix: bool) -> Task:
        form = "matrix" if matrix else "json" if as_json else "text"
        return {"actions": [partial(act, self.print_plan, form)], "uptodate": [False], **_OPEN}

    def inspect(self, *, as_json: bool) -> Task:
        actions = [partial(act, self.print_inside, as_json)]
        return {"actions": actions, "uptodate": [False], **_OPEN}

    def diff(self, *, everything: bool, as_json: bool) -> Task:
        actions = [partial(act, self.print_difference, everything, as_json)]
        return {"actions": actions, "uptodate": [False], **_OPEN}

    def reproduce(self, *, everything: bool, as_json: bool) -> Task:
        actions = [partial(act, self.build_twice, everything, as_json)]
        return {"actions": actions, "uptodate": [False], **_OPEN}

    def gc(self, *, dry_run: bool, as_json: bool) -> Task:
        actions = [partial(act, self.collect_garbage, dry_run, as_json)]
        return {"actions": actions, "uptodate": [False], **_OPEN}

    def fsck(self, *, dry_run: bool, as_json: bool) -> Task:
        actions = [partial(act, self.check_store, dry_run, as_json)]
        return {"actions": actions, "uptodate": [False], **_OPEN}

    def test(self, *, unit: bool) -> Task:
        prepare = [] if unit else [partial(act, self.prepare_tests)]
        # Two at a time, because a boot test mostly waits; a file's tests share what they set up.
        argv = ["-m", "pytest", "-n", str(_TEST_PROCESSES), "--dist", "loadfile"]
        pytest = partial(act, _python, *argv, "tests/unit" if unit else "tests")
        return {"actions": [*prepare, pytest], "uptodate": [False], **_OPEN}

    def product(
        self,
        kind: Kind,
        name: str,
        recipe: Callable[[], Recipe],
        make: Callable[[], tuple[Artifact, State]],
        *,
        setup: list[str],
        doc: str,
        image: str | None = None,
    ) -> Task:
        """A task whose product is one file of one object of the store, with a link to it."""
        file, place = PRODUCTS[kind]
        at = self.artifacts / place.format(name=name)
        # What the reporter says of a product that need not be made.
        meta: dict[str, str] = {}

        def run() -> Task:
            if image is not None and self.skip(image):
                return {"state": "skipped", "note": self.skipped[image]}
            artifact, state = make()
            self.store.adopt(self.artifacts)
            link(artifact, file, at)
            return self.made(recipe(), state)

        def current() -> bool:
            if image is not None and self.refused(image):
                return False
            found = self.store.find(recipe())
            if found is None:
                return False
            self.store.adopt(self.artifacts)
            if not links_to(at, found, file):
                # Here, because what comes before an action asks the engine for what it was made of.
                meta.update(state="restored" if at.is_symlink() else "stored", note=recipe().short)
                link(found, file, at)
            self.states[str(recipe())] = "stored"
            return True

        return {
            "name": name,
            "doc": doc,
            "actions": [partial(act, run)],
            "setup": setup,
            "targets": [str(at)],
            **_OPEN,
            "uptodate": [partial(asked, current)],
            "meta": meta,
            "clean": [partial(at.unlink, missing_ok=True)],
        }

    # What the tasks do.

    def made(self, recipe: Recipe, state: State) -> Task:
        self.states[str(recipe)] = state
        return {"state": state, "note": recipe.short}

    def make_image(self, name: str) -> Task | None:
        if self.skip(name):
            return None  # rootfs:NAME says it
        return self.made(self.plan.container(name), self.pipeline.container(name))

    def make_kernel(self, name: str) -> tuple[Artifact, State]:
        return self.pipeline.kernel(name)

    def make_rootfs(self, name: str) -> tuple[Artifact, State]:
        return self.pipeline.rootfs(name)

    def image_held(self, name: str) -> bool:
        return not self.refused(name) and self.held(self.plan.container(name))

    def refused(self, name: str) -> bool:
        """Whether building an image ends in an error about its lock, also when it is there."""
        return self.strict and bool(self.plan.unlocked(name))

    def held(self, recipe: Recipe) -> bool:
        return self.pipeline.engine.has(recipe.tag)

    def skip(self, name: str) -> bool:
        """Whether to leave an image out: nobody asked for it by name, and its base is not to be
        had here."""
        if self.named or name in self.skipped:
            return name in self.skipped
        if missing := self.pipeline.unreachable(name):
            self.skipped[name] = f"no registry answers for its base image {missing}"
        return name in self.skipped

    def refuse(self, names: list[str]) -> None:
        raise SpecError(
            [
                f"{name} is a base for other images: it has no root filesystem to boot"
                for name in names
            ],
            hint=f"bootable: {', '.join(self.plan.bootable())}",
        )

    def verify(self, name: str) -> None:
        from fcbuild.verify import verify
        from fcbuild.vmm import firecracker

        image = self.plan.specs.images[name]
        if name in self.skipped:
            raise FcBuildError(f"{name} cannot be built here: {self.skipped[name]}")
        vmm = firecracker.find(self.pipeline.downloads)
        kernel, rootfs = self.plan.kernel(image.kernel), self.plan.rootfs(name)
        host = self.host()
        receipt_path = self.artifacts / "receipts" / f"{name}.json"
        say = progress.say
        say(f"booting {name} in Firecracker {vmm.version}, KVM {host.kind}")
        receipt = verify(
            image,
            kernel=self.store.need(kernel),
            rootfs=self.store.need(rootfs),
            host=host,
            firecracker=vmm,
            receipt_path=receipt_path,
            instance=self.instance,
        )
        for recipe in (kernel, rootfs):
            state = "built" if self.states.get(str(recipe)) == "built" else "reused"
            print(f"{recipe!s:<24} {state}  {recipe.short}")
        for line in outcome(receipt):
            print(line)
        print(f"receipt   {os.path.relpath(receipt_path)}")

    def move_lock(self, check: bool) -> None:  # noqa: FBT001 (doit's way to pass it)
        """Ask what tags and packages are now; show what moved and, but for `check`, lock it."""
        from fcbuild.build import resolve

        with tempfile.TemporaryDirectory(prefix="lock-", dir=self.artifacts) as scratch:
            answer = resolve.ask(
                self.plan,
                self.store,
                self.pipeline.engine,
                names=self.wanted,
                toolchain=not self.named,
                scratch=Path(scratch),
            )
            moved = [
                *lock.moves(self.plan.specs.lock, answer.images),
                *lock.moves(self.plan.toolchain_lock, answer.toolchain),
            ]
            print("\n".join(moved) or "nothing moved")
            if moved and not check:
                lock.write(self.root / "images" / lock.FILE, answer.images)
                if not self.named:
                    lock.write(TOOLCHAIN_LOCK, answer.toolchain)
                resolve.keep(Plan(spec.load(self.root)), self.store, answer)
        if answer.silent:
            raise SourceError(
                "\n".join(answer.silent), hint="what was locked before stays; try again later"
            )
        if moved and check:
            raise FcBuildError("the lock is not what it would be now", hint="doit lock moves it")

    def prepare_tests(self) -> None:
        """Build what the boot tests stand on, where its progress can be seen and no test's
        deadline counts."""
        from fcbuild.errors import ToolMissing

        try:
            for name in self.plan.specs.kernels:
                if name != KVM_HOST or self.emulated:
                    self.pipeline.kernel(name)
            self.pipeline.program(self.plan.agent)
            for name in self.plan.bootable():
                if not self.pipeline.unreachable(name):
                    self.pipeline.rootfs(name)
        except ToolMissing as error:
            progress.say(f"tests that need it will be skipped: {error}")

    def host(self) -> Host:
        """Return where Firecracker runs. Raises ToolMissing; says so when it is emulated."""
        from fcbuild.errors import ToolMissing
        from fcbuild.run import need
        from fcbuild.vmm import kvm
        from fcbuild.vmm.native import NativeHost

        trouble = kvm.trouble()
        if not self.emulated:
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
            kernel=self.store.need(self.plan.kernel(KVM_HOST)).file("vmlinux"),
            agent=self.store.need(self.plan.agent).file(BINARY["agent"]),
        )

    def print_inside(self, as_json: bool) -> None:  # noqa: FBT001 (doit's way to pass it)
        from fcbuild.look import choice, inspection

        if len(self.to_boot) != 1:
            raise SpecError([f"image={get_var('image')}: inspect looks into one image at a time"])
        artifact = choice.rootfs(self.to_boot[0], self.plan, self.store)
        with self.trees(artifact, reader=self.reader) as (tree,), quiet_pipe():
            inspection.show(artifact, tree, get_var("path"), as_json=as_json, out=sys.stdout)

    def print_difference(self, everything: bool, as_json: bool) -> None:  # noqa: FBT001
        from fcbuild.look import choice, difference
        from fcbuild.vmm import kvm

        words = [get_var("a"), get_var("b")]
        if None in words:
            raise SpecError(
                ["diff compares two root filesystems: a=IMAGE b=IMAGE"],
                hint="each an image's name, or the beginning of a fingerprint",
            )
        a, b = (choice.rootfs(word, self.plan, self.store) for word in words)
        found = difference.Difference()
        if a.digests != b.digests:
            # Every file is read, and an emulated appliance takes minutes over that.
            reader = self.reader or ("debugfs" if kvm.trouble() else None)
            with self.trees(a, b, reader=reader) as trees:
                found = difference.compare(*map(difference.contents, trees))
        with quiet_pipe():
            difference.show(a, b, found, everything=everything, as_json=as_json, out=sys.stdout)

    def build_twice(self, everything: bool, as_json: bool) -> None:  # noqa: FBT001
        """Build again what is built, and show how the bytes differ. Raises FcBuildError if so."""
        from fcbuild.reproduce import builds, verdict
        from fcbuild.vmm import kvm

        reader = self.reader or ("debugfs" if kvm.trouble() else None)
        found = []
        for one in builds.verdicts(
            self.pipeline,
            self.root,
            self.to_boot,
            kernels=self.with_kernel,
            at=self.artifacts,
            opened=lambda artifacts: self.trees(*artifacts, reader=reader),
        ):
            found.append(one)
            if not as_json:
                print(*verdict.lines(one, everything=everything), sep="\n", flush=True)
        if as_json:
            print(json.dumps([verdict.document(one) for one in found]))
        if moved := [one.what for one in found if not one.identical]:
            raise FcBuildError(f"not the same when built again: {', '.join(moved)}")

    def trees(self, *artifacts: Artifact, reader: str | None) -> AbstractContextManager[list[Tree]]:
        """Open root filesystems to look into."""
        from fcbuild.look import readers

        return readers.opened(
            [artifact.file("rootfs.ext4") for artifact in artifacts],
            wanted=reader,
            engine=self.pipeline.engine,
            toolchain=self.pipeline.toolchain,
            logs=self.artifacts,
        )

    def print_plan(self, form: str) -> None:
        from fcbuild import preview

        images = self.wanted if self.named else None
        rows = preview.rows(self.plan, self.store, self.artifacts, images)
        with quiet_pipe():
            if form == "matrix":
                print(preview.matrix(self.plan, rows))
            elif form == "json":
                print(preview.document(rows))
            else:
                print("\n".join(preview.text(rows)))

    def collect_garbage(self, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
        from fcbuild import gc
        from fcbuild.vmm import firecracker

        limits = gc.policy(get_var("age"), get_var("size"))
        kernels = self.plan.specs.kernels.values()
        pinned = {source.sha256 for kernel in kernels for source in kernel.sources}
        report = gc.collect(
            self.store,
            self.plan,
            limits,
            pinned={*pinned, firecracker.pinned()},
            engine=self.pipeline.engine,
            dry_run=dry_run,
        )
        with quiet_pipe():
            gc.show(report, limits, dry_run=dry_run, as_json=as_json, out=sys.stdout)

    def check_store(self, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
        from fcbuild import fsck

        found = fsck.check(self.store, self.artifacts, dry_run=dry_run)
        with quiet_pipe():
            fsck.show(found, as_json=as_json, dry_run=dry_run, out=sys.stdout)
        if found:
            hint = "doit fsck repairs that" if dry_run else None
            things = "1 thing was" if len(found) == 1 else f"{len(found)} things were"
            raise StoreError(f"{things} not as built", hint=hint)


def outcome(receipt: Receipt) -> Iterator[str]:
    """Yield the lines that say how a boot went."""
    times = receipt.timings
    yield (
        f"boot      {times['start_to_exec']} ms from InstanceStart to the entrypoint"
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


def check_variables(argv: list[str]) -> None:
    """Raise SpecError for a variable that nobody reads."""
    for word in argv:
        name, equals, _ = word.partition("=")
        if equals and not word.startswith("-") and name not in VARIABLES:
            known = "; ".join(f"{key}= ({text})" for key, text in VARIABLES.items())
            raise SpecError(
                [f"unknown variable {name}={did_you_mean(name, VARIABLES)}"], hint=f"known: {known}"
            )


def choice_of(variable: str, choices: Sequence[str]) -> str | None:
    """Return the value of a variable, or None. Raises SpecError for one that is no choice."""
    value: str | None = get_var(variable)
    if value is not None and value not in choices:
        near = did_you_mean(value, choices)
        raise SpecError([f"{variable}={value}: expected {' or '.join(choices)}{near}"])
    return value


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Let whoever reads our output leave early, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be tried again, and fail again, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def act(function: Callable[..., Any], *args: Any) -> Any:
    """Run what a task does; turn an error that a user can meet into doit's failure, which is
    reported without a traceback and ends doit with status 1. Others are our bugs."""
    try:
        return function(*args)
    except FcBuildError as error:
        return TaskFailed(f"error: {error}")


def asked(current: Callable[[], bool]) -> bool:
    """Answer doit's "is it up to date?". An error here would end doit with a traceback, so the task
    runs instead and meets the same error where it can be reported."""
    try:
        return current()
    except FcBuildError:
        return False


def interruptible() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, so that no VM or container stays behind, and
    answer all three in one line."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    unhandled = sys.excepthook

    def without_traceback(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            progress.say("interrupted: what was under way is undone, what was finished is kept")
        else:
            unhandled(kind, error, trace)

    sys.excepthook = without_traceback


def lint() -> Task:
    """The task that checks style and types."""
    commands = [
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
    ]
    return {
        "actions": [partial(act, _python, *command) for command in commands],
        "uptodate": [False],
        **_OPEN,
    }


def _python(*argv: str) -> Any:
    """Run a Python tool of .venv on the terminal."""
    from fcbuild.run import foreground

    status = foreground([sys.executable, *argv])
    return None if status == 0 else TaskFailed(f"{argv[1]} ended with status {status}")
