"""An interruption while tasks run in threads: each undoes what it has under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from fcbuild.store import locks

ROOT = Path(__file__).resolve().parents[2]
# What doit does with -n: tasks in daemon threads, and the main thread waits for results.
PROGRAM = """
import contextlib, sys, threading, time
from pathlib import Path
from fcbuild import interruption
from fcbuild.run import conversation, run
from fcbuild.store import locks
from fcbuild.tasks import action

place = Path({place!r})

def child():
    (place / "under way").touch()
    run(["sleep", "100"], what="sleeping", timeout_s=200)

def deaf():
    # It outlives us by some seconds.
    script = "trap '' TERM; touch '" + str(place / "under way") + "'; sleep 5"
    run(["sh", "-c", script], what="sleeping", timeout_s=200)

def talk():
    (place / "under way").touch()
    with (place / "log").open("wb") as log, conversation(
        ["cat"], what="cat", log=log, timeout_s=200
    ) as (_, stdout):
        try:
            stdout.read()
        except BrokenPipeError:
            pass

def lock():
    with locks.exclusive(place / "lock", waiting=(place / "under way").touch):
        pass

def between():
    (place / "under way").touch()
    for _ in range(1000):
        interruption.heed()
        time.sleep(0.1)

def twice():
    try:
        child()
    finally:
        # What undoing needs is not interrupted again.
        run(["true"], what="undoing", timeout_s=20)
        (place / "undone").touch()

def work():
    try:
        {task}()
        (place / "went on").touch()
    finally:
        (place / "unwound").touch()

def thread():
    with contextlib.suppress(KeyboardInterrupt):
        action.act(work)
    threading.Event().wait(1000)  # as doit's do, for more to do

action.interruptible()
threading.Thread(target=thread, daemon=True).start()
print("ready", flush=True)
threading.Event().wait(100)
"""


def interrupted(place: Path, task: str, *, times: int = 1) -> str:
    """Run a task in a thread, interrupt the program when it is under way, again after a second for
    each further time; return what it said."""
    text = textwrap.dedent(PROGRAM).format(place=str(place), task=task)
    program = subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    watchdog = threading.Timer(60, program.kill)
    watchdog.start()
    try:
        while not (place / "under way").exists() and program.poll() is None:
            threading.Event().wait(0.02)
        threading.Event().wait(0.3)  # until it does wait
        program.send_signal(signal.SIGINT)
        for _ in range(times - 1):
            threading.Event().wait(1)
            program.send_signal(signal.SIGINT)
        said = program.communicate()[0].decode()
    finally:
        watchdog.cancel()
        program.kill()
        program.wait()
    assert program.returncode != 0
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("task", ["child", "talk", "between", "twice"])
def test_a_task_in_a_thread_unwinds(tmp_path: Path, task: str) -> None:
    said = interrupted(tmp_path, task)
    assert said.endswith("interrupted: what was under way is undone, what was finished is kept\n")
    assert (tmp_path / "unwound").exists()
    assert not (tmp_path / "went on").exists()
    assert (tmp_path / "undone").exists() == (task == "twice")


def test_a_wait_for_anothers_lock_is_ended(tmp_path: Path) -> None:
    with locks.exclusive(tmp_path / "lock", waiting=lambda: None):
        said = interrupted(tmp_path, "lock")
    assert "what was under way is undone" in said
    assert (tmp_path / "unwound").exists()
    assert not (tmp_path / "went on").exists()


def test_who_interrupts_twice_does_not_wait(tmp_path: Path) -> None:
    said = interrupted(tmp_path, "deaf", times=2)
    assert said.endswith(
        "interrupted: what was under way is not all undone: doit gc does the rest\n"
    )
    assert not (tmp_path / "unwound").exists()


def test_a_lock_that_comes_is_taken_by_who_waited(tmp_path: Path) -> None:
    waits, held = threading.Event(), threading.Event()

    def other() -> None:
        with locks.exclusive(tmp_path / "lock", waiting=waits.set):
            held.set()

    with locks.exclusive(tmp_path / "lock", waiting=lambda: None):
        thread = threading.Thread(target=other)
        thread.start()
        assert waits.wait(10)
        assert not held.wait(0.2)
    assert held.wait(10)
    thread.join(10)
    descriptor = locks.claim(tmp_path / "lock")
    assert descriptor is not None  # and given back
    os.close(descriptor)
