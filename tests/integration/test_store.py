"""The store with the real pipeline: killed, shared, damaged, collected."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcbuild.store import Store, manifest
from tests import workspace
from tests.workspace import Workspace

pytestmark = pytest.mark.engine

# How often the real pipeline is killed. Each time takes half a build and more, so many times are
# for who asks for them: FCBUILD_TEST_KILLS=24
KILLS = int(os.environ.get("FCBUILD_TEST_KILLS", "8"))


@pytest.fixture
def own(checkout: Workspace, tmp_path: Path) -> Workspace:
    """A checkout with a store of its own."""
    return workspace.alone(checkout, tmp_path / "store")


def unique() -> str:
    """A name that no image in the engine has, so that it is built."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def image(own: Workspace) -> Iterator[str]:
    """An image of its own, static, small; its container images are removed afterwards."""
    name = unique()
    own.image(name, "", 'FROM fcbuild/debian-base\nCOPY a /a\nCMD ["true"]\n', a=name)
    yield name
    listed = ["docker", "image", "ls", "--quiet", f"fcbuild/{name}"]
    found = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    if found:
        subprocess.run(["docker", "image", "rm", "--force", *found], check=True)


def assert_whole(store: Path) -> None:
    for directory in Store(store).directories():
        artifact = manifest.read(directory)
        assert artifact
        assert not [*manifest.damage(artifact), *manifest.foreign(artifact)]


def test_kills_at_random_moments_of_a_build(own: Workspace, image: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    started = time.monotonic()
    assert own.doit(f"rootfs:{image}").status == 0
    lasts = time.monotonic() - started
    for number in range(KILLS):
        (own.root / "images" / image / "a").write_text(f"{image} {number}")
        before = set(Store(own.store).directories())
        doit = subprocess.Popen(
            own.argv(f"rootfs:{image}"),
            cwd=own.root,
            env=own.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # The moment itself is what is tested, so this is a wait for nothing else.
        time.sleep(chance.uniform(0, lasts))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(doit.pid, signal.SIGKILL)
        doit.wait(20)
        assert_whole(own.store)
        assert before <= set(Store(own.store).directories())
    result = own.doit(f"rootfs:{image}")
    assert result.status == 0, result.output
    assert own.doit("gc").status == 0
    assert not list((own.store / "stage").iterdir())
    assert not workspace.containers(own.store)
    assert own.doit("fsck").status == 0


def test_what_a_kill_leaves_in_the_engine_is_removed_and_nobody_elses(own: Workspace) -> None:
    fragment = own.root / "kernels" / "fragments" / "net.config"
    fragment.write_text(fragment.read_text() + f"# {uuid.uuid4()}\n")
    live = unique()
    alive = ["docker", "run", "--detach", "--rm", "--name", live, "--label", "fcbuild"]
    doit = subprocess.Popen(
        own.argv("kernel:6.12"),
        cwd=own.root,
        env=own.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert doit.stderr
    try:
        for line in doit.stderr:
            if line.startswith("kernel:6.12: unpack"):
                break
        deadline = time.monotonic() + 60
        while not (left := workspace.containers(own.store)):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # the engine has no event that says whose a container is
        inspected = ["docker", "inspect", "--format", "{{.Config.Image}}", *left]
        image = subprocess.run(inspected, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([*alive, image, "sleep", "60"], check=True, capture_output=True)
        assert own.doit("gc").status == 0  # of a process that lives
        assert workspace.containers(own.store) == left
    finally:
        os.killpg(doit.pid, signal.SIGKILL)
        doit.wait(20)
        doit.stderr.close()
    try:
        assert workspace.containers(own.store) == left
        result = own.doit("gc")
        assert result.status == 0
        assert "1 containers of killed runs" in result.output
        assert not workspace.containers(own.store)
        running = ["docker", "ps", "--quiet", "--filter", f"name={live}"]
        assert subprocess.run(running, check=True, capture_output=True).stdout
    finally:
        subprocess.run(["docker", "rm", "--force", live], check=True, capture_output=True)
    assert not list((own.store / "stage").iterdir())


def test_a_flipped_bit_is_found_and_what_it_was_in_is_built_again(
    own: Workspace, image: str
) -> None:
    assert own.doit(f"rootfs:{image}").status == 0
    assert own.doit("fsck").status == 0
    rootfs = (own.root / "artifacts" / "images" / f"{image}.ext4").resolve()
    content = bytearray(rootfs.read_bytes())
    content[len(content) // 3] ^= 1
    rootfs.chmod(0o600)
    rootfs.write_bytes(content)
    shown = own.doit("fsck", "--dry-run")
    assert shown.status == 1 and "rootfs.ext4 has other bytes than were built" in shown.output
    assert "Traceback" not in shown.output
    assert own.doit("fsck").status == 1
    assert not rootfs.exists()
    assert own.doit("fsck").status == 0
    result = own.doit(f"rootfs:{image}")
    assert f"built    rootfs:{image}" in result.output
    assert own.doit("fsck").status == 0


def test_a_damaged_program_is_not_built_upon(own: Workspace, image: str) -> None:
    assert own.doit("_init").status == 0
    (program,) = (own.store / "objects" / "init").glob("*/init")
    program.chmod(0o600)
    program.write_bytes(bytes(program.stat().st_size))
    result = own.doit(f"rootfs:{image}")
    assert result.status == 0, result.output
    assert re.search(r"init:guest: \w+ in the store is damaged: building it again", result.output)
    assert own.doit("fsck").status == 0


def test_gc_removes_what_was_built_from_other_inputs(own: Workspace, image: str) -> None:
    assert own.doit(f"rootfs:{image}").status == 0
    first = (own.root / "artifacts" / "images" / f"{image}.ext4").resolve()
    (own.root / "images" / image / "a").write_text("other")
    assert own.doit(f"rootfs:{image}").status == 0
    assert len(held(image)) == 2
    said = own.doit("gc", "--json").output
    nothing = json.loads(said[said.index("{") :])
    assert nothing["removed"] == []
    result = own.doit("gc", "age=0")
    assert result.status == 0, result.output
    assert re.search(rf"^removed   rootfs:{image} ", result.output, re.MULTILINE)
    assert not first.exists()
    assert len(held(image)) == 1
    again = own.doit(f"rootfs:{image}")
    assert f"stored   rootfs:{image}" in again.output
    assert own.doit("fsck").status == 0


def held(image: str) -> set[str]:
    listed = ["docker", "image", "ls", "--format", "{{.Tag}}", f"fcbuild/{image}"]
    return {*subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()}


def test_a_store_may_have_an_odd_name(checkout: Workspace, tmp_path: Path) -> None:
    own = workspace.alone(checkout, tmp_path / "a b:c,d'é%")
    # Compiled in a container that has the store mounted.
    for directory in Store(own.store).directories():
        assert Store(own.store).drop(directory)
    result = own.doit("_init", "rootfs:hello")
    assert result.status == 0, result.output
    assert "built    _init" in result.output and "built    rootfs:hello" in result.output
    assert own.doit("fsck").status == 0
