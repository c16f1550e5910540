"""A user's checkout in a directory of its own, for tests that run the real commands in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.plan import Plan
from fcbuild.store import Store

ROOT = Path(__file__).parent.parent
# Shared by all tests and by the checkout itself, so that nothing is built twice.
STORE = Path(os.environ.get("FCBUILD_STORE") or ROOT / "artifacts" / "store")


@dataclass(frozen=True)
class Result:
    """What a command did. output: standard output and error, as they came."""

    status: int
    output: str


@dataclass(frozen=True)
class Workspace:
    """A copy of the checkout's own files, with the real store.

    scratch: where its commands keep temporary files; None for where everybody does. store: where
    they build.
    """

    root: Path
    scratch: Path | None = None
    store: Path = STORE

    def doit(self, *args: str, env: dict[str, str] | None = None, timeout_s: float = 900) -> Result:
        done = subprocess.run(
            self.argv(*args),
            cwd=self.root,
            env=self.env(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        return Result(done.returncode, done.stdout)

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "doit", *args]

    def env(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        scratch = {"TMPDIR": str(self.scratch)} if self.scratch else {}
        # Images that tests invent are not locked, which CI refuses.
        mine = {"CI": "", "FCBUILD_LOCKED": "", "FCBUILD_STORE": str(self.store)}
        return {**os.environ, **mine, **scratch, **(extra or {})}

    def image(self, name: str, toml: str, dockerfile: str, **files: str) -> None:
        """Add an image. Names of files: "." is written as "__"."""
        directory = self.root / "images" / name
        directory.mkdir()
        (directory / "image.toml").write_text(toml)
        (directory / "Dockerfile").write_text(dockerfile)
        for file, text in files.items():
            (directory / file.replace("__", ".")).write_text(text)

    def receipt(self, name: str) -> Any:
        return json.loads((self.root / "artifacts" / "receipts" / f"{name}.json").read_text())

    @contextmanager
    def interrupt(
        self, *args: str, after: str, number: signal.Signals, seconds: float = 2.0
    ) -> Iterator[None]:
        """Run a command up to the line that starts with `after`, let the caller look around some
        seconds later, then send the signal and wait for the end, which must not be a success."""
        doit = subprocess.Popen(
            self.argv(*args),
            cwd=self.root,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert doit.stdout
        watchdog = threading.Timer(300, doit.kill)
        watchdog.start()
        try:
            for line in doit.stdout:
                if line.startswith(after):
                    break
            # Somewhere in the middle is where it hurts.
            threading.Event().wait(seconds)
            yield
            doit.send_signal(number)
            output, _ = doit.communicate(timeout=120)
        finally:
            watchdog.cancel()
            doit.kill()
            doit.wait()
        assert doit.returncode != 0
        assert "interrupted: " in output and "Traceback" not in output


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if trouble := engine_trouble():
        pytest.skip(trouble)


@pytest.fixture
def checkout(tmp_path: Path, short_dir: Path) -> Workspace:
    return replace(make(tmp_path), scratch=short_dir)


def alone(checkout: Workspace, store: Path, *kernels: str) -> Workspace:
    """Give a checkout a store of its own, for tests of what is in it. What takes minutes to make is
    taken from the store of all: fetched sources, which are never written to, and small objects;
    and these kernels."""
    store.mkdir()
    shared = Store(STORE)
    plan = Plan(spec.load(ROOT))
    for recipe in (plan.init, plan.agent, *map(plan.kernel, kernels)):
        if found := shared.hold(recipe):
            at = store / "objects" / recipe.kind / recipe.fingerprint
            shutil.copytree(found.directory, at)
    if (STORE / "downloads").exists():
        (store / "downloads").symlink_to((STORE / "downloads").resolve())
    return replace(checkout, store=store)


def containers(store: Path) -> set[str]:
    """Return the containers that work in this store."""
    shown = ["--no-trunc", "--format={{.ID}} {{.Mounts}}"]
    listed = subprocess.run(
        ["docker", "ps", "--all", "--filter=label=fcbuild", *shown],
        check=True,
        capture_output=True,
        text=True,
    )
    return {line.split()[0] for line in listed.stdout.splitlines() if str(store) in line}


def make(root: Path) -> Workspace:
    """Copy what a clone would have to `root`."""
    for part in ("fcbuild", "images", "kernels"):
        shutil.copytree(
            ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for file in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / file, root)
    return Workspace(root)


def engine_trouble() -> str | None:
    """Return why there is no container engine to test with, or None."""
    try:
        subprocess.run(["docker", "version"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no container engine answers: {error}"
    return None


def registry_trouble(reference: str) -> str | None:
    """Return why an image cannot be had from its registry, or None."""
    held = ["docker", "image", "inspect", reference]
    if subprocess.run(held, check=False, capture_output=True).returncode == 0:
        return None
    asked = ["docker", "manifest", "inspect", reference]
    env = {**os.environ, "DOCKER_CLI_EXPERIMENTAL": "enabled"}
    done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60, env=env)
    return f"no registry answers for {reference}" if done.returncode else None
