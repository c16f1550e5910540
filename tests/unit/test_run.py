"""Host tools: what they print, how they fail, and that none is left running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from fcbuild import progress
from fcbuild import run as runs
from fcbuild.errors import CommandFailed, ToolMissing
from fcbuild.run import TAIL_LINES, conversation, environment, need, output, run

LONG_S = 60.0  # longer than any test may take


def sh(script: str, *, timeout_s: float = 20.0, **kwargs: object) -> None:
    run(["sh", "-c", script], what="the tool", timeout_s=timeout_s, **kwargs)  # type: ignore[arg-type]


def fill(to: IO[bytes]) -> None:
    to.write(bytes(1 << 22))


def gone(pid: int) -> bool:
    """Whether a process has ended; waits for a moment, as its death takes one."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":  # its new parent takes its time
            return True
        time.sleep(0.01)
    return False


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        sh("echo one; echo two >&2; printf three", log=log)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n"


def test_a_failure_carries_the_last_lines_and_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as log, pytest.raises(CommandFailed) as caught:
        sh("seq 100; printf 'bad \\377\\n'; exit 3", log=log, log_path=path, hint="do this")
    error = caught.value
    assert error.status == 3
    assert error.argv[0] == "sh"
    assert error.tail == (*map(str, range(100 - TAIL_LINES + 2, 101)), "bad \ufffd")
    assert error.log == path
    assert path.read_bytes().count(b"\n") == 101
    shown = str(error)
    assert shown.startswith("the tool failed with status 3: sh -c ")
    assert "  | bad \ufffd\n" in shown
    assert f"whole log: {path}" in shown
    assert shown.endswith("hint: do this")


def test_a_tool_that_a_signal_ends_says_which() -> None:
    with pytest.raises(CommandFailed, match="the tool failed with signal 9") as caught:
        sh("kill -9 $$")
    assert caught.value.status == -9


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(ToolMissing, match="no-such-tool is not installed") as caught:
        run(["no-such-tool"], what="x", timeout_s=20, hint="apt-get install it")
    assert caught.value.hint == "apt-get install it"


def test_need_finds_a_tool_or_names_its_package() -> None:
    assert need("sh", "dash").name == "sh"
    with pytest.raises(ToolMissing) as caught:
        need("no-such-tool", "its-package")
    assert str(caught.value) == (
        "no-such-tool is not installed\n  hint: apt-get install its-package"
    )


@pytest.mark.parametrize("noise", ["", "echo noise;"])
def test_a_tool_is_ended_when_its_time_is_up(tmp_path: Path, noise: str) -> None:
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="did not end within") as caught:
        sh(f"echo $$ > {tmp_path}/pid; {noise} exec sleep {LONG_S}", timeout_s=0.4)
    assert time.monotonic() - begun < LONG_S / 2
    assert caught.value.tail == (("noise",) if noise else ())
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_a_tool_started_is_ended_with_it(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        sh(f"sleep {LONG_S} & echo $! > {tmp_path}/pid; wait", timeout_s=0.4)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_tool_that_prints_without_end_is_ended_too() -> None:
    with pytest.raises(CommandFailed, match="did not end within"):
        run(["yes"], what="yes", timeout_s=0.4)


def test_a_tool_that_does_not_take_its_input_is_ended_too() -> None:
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="did not end within"):
        run(
            ["sleep", str(LONG_S)],
            what="a deaf tool",
            timeout_s=0.4,
            stdin=fill,
        )
    assert time.monotonic() - begun < LONG_S / 2


def test_a_tool_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "GRACE_S", 0.1)
    with pytest.raises(CommandFailed):
        sh(
            f"trap '' TERM; echo $$ > {tmp_path}/pid; echo up; exec sleep {LONG_S}",
            timeout_s=0.4,
        )
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_ends_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(text: str) -> None:
        raise error

    monkeypatch.setattr(progress, "detail", interrupted)
    with pytest.raises(error):
        sh(f"echo $$ > {tmp_path}/pid; echo up; exec sleep {LONG_S}")
    assert gone(int((tmp_path / "pid").read_text()))


def test_input_is_fed_and_output_goes_to_the_file(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)

    def feed(to: IO[bytes]) -> None:
        to.write(data)

    with (tmp_path / "out").open("wb") as out, (tmp_path / "log").open("wb") as log:
        sh("cat > all; cat all; echo said >&2; rm all", stdin=feed, stdout=out, log=log)
    assert (tmp_path / "out").read_bytes() == data
    assert (tmp_path / "log").read_bytes() == b"said\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_tool_that_ends_before_it_has_read_all_says_why_itself() -> None:
    with pytest.raises(CommandFailed, match=r"\| no room"):
        sh("echo no room; exit 1", stdin=fill)


def test_an_error_while_feeding_is_not_hidden() -> None:
    def feed(to: IO[bytes]) -> None:
        raise ValueError("the context is bad")

    with pytest.raises(ValueError, match="the context is bad"):
        sh("cat", stdin=feed)


def test_without_input_a_tool_reads_nothing(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        sh("wc -c", log=log)
    assert (tmp_path / "log").read_bytes().strip() == b"0"


def test_a_tool_speaks_the_c_locale_whatever_ours_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["LANG", "LC_MESSAGES", "LANGUAGE", "MAKEFLAGS", "SOURCE_DATE_EPOCH"]:
        monkeypatch.setenv(name, "de_DE")
    monkeypatch.setenv("KEPT", "1")
    found = environment({"EXTRA": "2"})
    assert (found["LC_ALL"], found["KEPT"], found["EXTRA"]) == ("C.UTF-8", "1", "2")
    assert "de_DE" not in found.values()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["sh", "-c", "echo yes"], "yes\n"),
        (["sh", "-c", "echo yes; exit 1"], None),
        (["no-such-tool"], None),
        (["sleep", str(LONG_S)], None),
    ],
)
def test_a_probe_answers_or_is_none(argv: list[str], expected: str | None) -> None:
    assert output(argv, what="a probe", timeout_s=0.3 if argv[0] == "sleep" else 20) == expected


def test_foreground_returns_the_status() -> None:
    assert runs.foreground([sys.executable, "-c", "raise SystemExit(5)"]) == 5


def test_a_conversation_goes_both_ways_and_ends_with_its_input(tmp_path: Path) -> None:
    with (
        (tmp_path / "log").open("wb") as log,
        conversation(
            ["sh", "-c", 'while read -r line; do echo "you said $line"; done; echo bye >&2'],
            what="an echo",
            log=log,
            timeout_s=20,
        ) as (questions, answers),
    ):
        for word in (b"one", b"two"):
            questions.write(word + b"\n")
            questions.flush()
            assert answers.readline() == b"you said " + word + b"\n"
    assert (tmp_path / "log").read_bytes() == b"bye\n"


def test_a_conversation_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        (tmp_path / "log").open("wb") as log,
        conversation(["sleep", str(LONG_S)], what="x", log=log, timeout_s=0.2) as (_, answers),
    ):
        assert answers.readline() == b""
    assert time.monotonic() - started < 10


def test_an_error_ends_a_conversation_with_all_that_it_started(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="of ours"),
        (tmp_path / "log").open("wb") as log,
        conversation(
            ["sh", "-c", f"sleep {LONG_S} & echo $!; wait"], what="x", log=log, timeout_s=60
        ) as (_, answers),
    ):
        started = int(answers.readline())
        raise ValueError("of ours")
    assert gone(started)
