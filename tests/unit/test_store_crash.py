"""Whatever kills a build, the store holds only whole objects, keeps what was built, and goes on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import BuildError, StoreError
from fcbuild.recipes import Recipe
from fcbuild.store import Stage, Store, layout, manifest

FORK = multiprocessing.get_context("fork")
KILLS = 200
PATIENCE_S = 60


def recipes(number: int) -> list[Recipe]:
    """A toolchain, a program and an image upon them: as in the real plan, each needs the ones
    before it."""
    base = Recipe("base", "toolchain", {"n": number})
    init = Recipe("init", "guest", {"n": number}, (base,))
    return [base, init, Recipe("rootfs", "web", {"n": number}, (base, init))]


def build_all(store: Store, number: int, built: Callable[[str], None] = lambda kind: None) -> None:
    """Build the last recipe, and in its build what it stands on: a toolchain that takes no time."""
    base, init, rootfs = recipes(number)

    def make_base(stage: Stage) -> None:
        built("base")
        stage.file("rootfs.tar").write_bytes(os.urandom(100_000))

    def make_init(stage: Stage) -> None:
        built("init")
        stage.log.write(b"compiling\n")
        tar = store.obtain(base, make_base, verify=True)[0].file("rootfs.tar").read_bytes()
        stage.file("init").write_bytes(tar[:1000])
        stage.file("init").chmod(0o755)

    def make_rootfs(stage: Stage) -> None:
        built("rootfs")
        program = store.obtain(init, make_init, verify=True)[0].file("init").read_bytes()
        (stage.scratch / "tar").write_bytes(program)
        stage.file("rootfs.ext4").write_bytes(program * 100)

    store.obtain(rootfs, make_rootfs)


def whole(store: Store, recipe: Recipe) -> bool:
    artifact = store.find(recipe)
    return artifact is not None and not [*manifest.damage(artifact), *manifest.foreign(artifact)]


def objects(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.directories()}


def assert_whole(store: Store) -> None:
    for directory in store.directories():
        artifact = manifest.read(directory)
        assert artifact, directory
        assert not [*manifest.damage(artifact)], directory
        assert not manifest.foreign(artifact), directory


def assert_goes_on(store: Store, number: int) -> None:
    """The next build succeeds, builds nothing that is there, and loses nothing."""
    before = objects(store)
    own = {f"objects/{r.kind}/{r.fingerprint}": r for r in recipes(number)}
    there = [recipe for name, recipe in own.items() if name in before]
    assert all(whole(store, recipe) for recipe in there)
    built: list[str] = []
    build_all(Store(store.root), number, built.append)
    assert not {recipe.kind for recipe in there} & {*built}
    assert before <= objects(store) >= own.keys()
    assert all(whole(store, recipe) for recipe in own.values())


def run(target: Callable[..., Any], *args: Any) -> Any:
    def alone() -> None:
        os.setsid()
        target(*args)
        os._exit(0)

    child = FORK.Process(target=alone)
    child.start()
    return child


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: a kill, unlike a power cut, takes nothing back
    that was written, so that waiting for a disk would show nothing more."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="fct-", dir="/dev/shm") as directory:
        yield Path(directory)


def test_kills_at_random_moments(memory: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = Store(memory / "store")
    started = time.monotonic()
    child = run(build_all, store, -1)
    child.join(PATIENCE_S)
    assert child.exitcode == 0
    lasts = time.monotonic() - started
    killed = 0
    for number in range(KILLS):
        child = run(build_all, Store(store.root), number)
        # The moment itself is what is tested, so this is a wait for nothing else.
        moment = chance.uniform(0, lasts)
        time.sleep(moment)
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            child.kill()  # before it had a group of its own, or after its end
        child.join(PATIENCE_S)
        killed += child.exitcode != 0
        # How long a build takes changes with what else the machine does.
        lasts = lasts * 1.05 if child.exitcode else moment
        assert_goes_on(store, number)
    assert killed > KILLS // 4, "the moments were all too late"
    assert_whole(store)
    # What is left is of builds that were killed after all was done, and nobody holds it.
    assert all(map(store.clear_stage, (store.root / "stage").iterdir()))


def test_kills_at_every_step(memory: Path) -> None:
    """Python tells of every call to the system that opens, makes, moves, changes or locks."""

    def until(store: Store, number: int, last: int) -> None:
        seen = 0

        def step(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if event.startswith(("open", "os.", "fcntl.", "shutil.", "tempfile.")):
                seen += 1
                if seen == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        build_all(store, number)

    for last in range(1, 2000):
        # A new store each time: its making is part of it.
        store = Store(memory / str(last) / "store")
        child = run(until, store, last, last)
        child.join(PATIENCE_S)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        assert_goes_on(store, last)
    assert last > 100


@pytest.mark.parametrize("call", ["fsync", "write", "rename", "copy"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_an_error_of_the_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    store = Store(tmp_path / "store")
    build_all(store, 0)
    owner, name = {
        "fsync": (os, "fsync"),
        "write": (Path, "write_bytes"),
        "rename": (Path, "rename"),
        "copy": (shutil, "copyfile"),
    }[call]

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        with pytest.raises(StoreError, match="cannot be written: " + os.strerror(code)) as caught:
            build_all(store, 1)
    if code == errno.ENOSPC:
        assert "doit gc" in str(caught.value.hint)
    assert not list((store.root / "stage").iterdir())
    assert len(objects(store)) >= 3
    assert_goes_on(store, 1)


def test_a_tool_that_meets_a_full_disk_gets_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(stage: Stage) -> None:
        raise BuildError("mke2fs failed")

    monkeypatch.setattr(layout, "is_full", lambda root: True)
    with pytest.raises(BuildError) as caught:
        Store(tmp_path / "store").obtain(recipes(0)[0], fails)
    assert "doit gc makes room" in str(caught.value.hint)


def test_a_bug_of_a_build_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    def fails(stage: Stage) -> None:
        stage.file("nosuch").read_bytes()

    with pytest.raises(FileNotFoundError):
        Store(tmp_path / "store").obtain(recipes(0)[0], fails)


FILL = """
    import os, sys
    from pathlib import Path
    from fcbuild.errors import StoreError
    from fcbuild.store import Store
    from tests.unit.test_store_crash import assert_goes_on, assert_whole, build_all, objects

    store = Store(Path(sys.argv[1], "store"))
    build_all(store, 0)
    filler, number = Path(sys.argv[1], "filler"), 0
    filler.mkdir()
    refusals = 0
    # Less and less room, until the first thing fails; then more and more.
    try:
        while True:
            (filler / str(number)).write_bytes(bytes({chunk}))
            number += 1
    except OSError:
        pass
    while number:
        number -= 1
        (filler / str(number)).unlink()
        before = objects(store)
        try:
            build_all(store, 1)
        except StoreError as error:
            assert "cannot be written: No space left on device" in error.message, error
            assert "doit gc" in error.hint
            refusals += 1
        else:
            break
        assert before <= objects(store)
        assert_whole(store)
        assert not list((store.root / "stage").iterdir())
    assert_goes_on(store, 1)
    print("refused", refusals)
"""


@pytest.fixture
def small_disk() -> Callable[[str, str], str]:
    """Run a program with a small file system of its own at a directory; return what it prints."""
    alone = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    probe = ["sh", "-c", "mount -t tmpfs none /mnt"]
    done = subprocess.run([*alone, *probe], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")

    def run(options: str, program: str) -> str:
        mount = f'mount -t tmpfs -o {options} none /mnt && exec "$0" -c "$1" /mnt'
        done = subprocess.run(
            [*alone, "sh", "-c", mount, sys.executable, textwrap.dedent(program)],
            cwd=Path(__file__).parents[2],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_full_disk(small_disk: Callable[[str, str], str]) -> None:
    said = small_disk("size=1m", FILL.replace("{chunk}", "4096"))
    assert int(said.split()[1]) > 3


def test_a_full_table_of_inodes(small_disk: Callable[[str, str], str]) -> None:
    said = small_disk("size=8m,nr_inodes=120", FILL.replace("{chunk}", "0"))
    assert int(said.split()[1]) > 3


def test_a_read_only_store_is_used_and_not_built_into(
    small_disk: Callable[[str, str], str],
) -> None:
    said = small_disk(
        "size=8m",
        """
        import subprocess, sys
        from pathlib import Path
        from fcbuild.errors import StoreError
        from fcbuild.store import Store
        from tests.unit.test_store_crash import build_all, recipes

        root = Path(sys.argv[1], "store")
        build_all(Store(root), 0)
        subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
        store = Store(root)
        build_all(store, 0, sys.exit)
        store.need(recipes(0)[2])
        store.adopt(Path("/"))
        try:
            build_all(store, 1)
        except StoreError as error:
            print(error)
        """,
    )
    assert "cannot be written: Read-only file system" in said
    assert "set FCBUILD_STORE" in said


# Several processes at once.


def note(path: Path) -> Callable[[str], None]:
    def built(kind: str) -> None:
        with path.open("ab") as file:
            file.write(kind.encode() + b"\n")

    return built


def test_eight_processes_build_each_object_once(tmp_path: Path) -> None:
    store, ready = tmp_path / "store", FORK.Barrier(8)

    def build(which: int) -> None:
        chance = random.Random(which)
        ready.wait(PATIENCE_S)
        for number in chance.sample(range(10), 10):
            build_all(Store(store), number, note(tmp_path / f"builds-{number}"))

    children = [run(build, which) for which in range(8)]
    for child in children:
        child.join(PATIENCE_S)
    assert [child.exitcode for child in children] == [0] * 8
    for number in range(10):
        built = (tmp_path / f"builds-{number}").read_text().split()
        assert sorted(built) == ["base", "init", "rootfs"]
    assert_whole(Store(store))
    assert not list((store / "stage").iterdir())


def test_who_waits_for_a_lock_goes_on_when_its_holder_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    reading, writing = os.pipe()

    def hang(kind: str) -> None:
        if kind == "init":  # it holds two locks now, and the others wait for them
            os.write(writing, b"x")
            signal.pause()

    holder = run(build_all, Store(root), 0, hang)
    assert os.read(reading, 1) == b"x"
    waiting = [run(build_all, Store(root), 0, note(tmp_path / "builds")) for _ in range(4)]
    assert not (tmp_path / "builds").exists()
    os.kill(holder.pid, signal.SIGKILL)
    for child in [holder, *waiting]:
        child.join(PATIENCE_S)
    assert [child.exitcode for child in waiting] == [0] * 4
    assert sorted((tmp_path / "builds").read_text().split()) == ["base", "init", "rootfs"]
    assert not list((root / "stage").iterdir())


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Path]:
    """A process that drops all that is not in use, over and over, lock files too."""
    root = tmp_path / "store"
    layout.prepare(root)

    def collect() -> None:
        store = Store(root)
        while True:
            for directory in store.directories():
                store.drop(directory)
            for lock in (root / "locks").iterdir():
                store.clear_lock(lock)
            for stage in (root / "stage").iterdir():
                store.clear_stage(stage)

    child = run(collect)
    yield root
    assert child.is_alive()
    child.kill()
    child.join()


def test_nothing_in_use_is_dropped(tmp_path: Path, collector: Path) -> None:
    def work(which: int) -> None:
        for number in range(20):
            store = Store(collector)
            build_all(store, number % 3)
            for recipe in recipes(number % 3)[-1:]:
                found = store.need(recipe)
                assert not [*manifest.damage(found)]
                # And it stays, with what its build stood on, as long as this process lives.
                assert store.hold(recipe) == found

    children = [run(work, which) for which in range(4)]
    for child in children:
        child.join(PATIENCE_S)
    assert [child.exitcode for child in children] == [0] * 4
