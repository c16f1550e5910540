"""What is said while things go on: lines always, live lines and colours on a terminal only."""

from __future__ import annotations

import contextlib
import io

import pytest

from fcbuild import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(progress, "_LIVE_EVERY_S", 0.0)


def step() -> None:
    with progress.step("compiling"):
        progress.detail("cc a.c")
        progress.say("a warning")


def test_piped_there_are_lines_and_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    step()
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[:2] == ["compiling ...", "a warning"]
    assert lines[2].startswith("compiling: ")
    assert "\x1b" not in captured.err
    assert "\r" not in captured.err
    assert progress.colour("x", "31") == "x"


def test_on_a_terminal_the_live_line_is_cleared() -> None:
    with contextlib.redirect_stderr(Terminal()) as terminal:
        step()
    shown = terminal.getvalue()
    assert "cc a.c\r\x1b[K" in shown
    assert shown.index("\r\x1b[K") < shown.index("a warning")
    assert shown.endswith(" s\n")


def test_a_live_line_shows_nothing_that_moves_the_cursor() -> None:
    with contextlib.redirect_stderr(Terminal()) as terminal, progress.step("x"):
        progress.detail("a\x1b[2Jb\nc\td")
    shown = terminal.getvalue().partition("...\n")[2].partition("\r\x1b[K")[0]
    assert "b c d" in shown
    assert shown.isprintable()


def test_no_color_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.redirect_stderr(Terminal()):
        assert progress.colour("x", "31") == "\x1b[31mx\x1b[0m"
        monkeypatch.setenv("NO_COLOR", "")
        assert progress.colour("x", "31") == "x"


def test_a_step_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress.step("compiling"):
        raise RuntimeError
    assert capsys.readouterr().err == "compiling ...\n"


def test_steps_may_be_nested(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("outer"), progress.step("inner"):
        pass
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "outer ...",
        "inner ...",
        "inner",
        "outer",
    ]


def test_a_detail_outside_of_a_step_is_not_shown() -> None:
    with contextlib.redirect_stderr(Terminal()) as terminal:
        progress.detail("x")
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
    ],
)
def test_durations_are_as_people_read_them(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_a_transfer_shows_how_far_it_is_and_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    meter = progress.Meter(100 << 20, done=20 << 20)
    assert meter.text(100.0) == "[####................] 20 of 100 MiB (20%)"
    meter.add(30 << 20)
    assert meter.text(100.5) == "[##########..........] 50 of 100 MiB (50%)"
    line = "[##########..........] 50 of 100 MiB (50%), 10.0 MiB/s, 5.0 s left"
    assert meter.text(103.0) == line
    meter.add(50 << 20)
    assert meter.text(108.0).endswith("100 of 100 MiB (100%), 10.0 MiB/s, 0.0 s left")


def test_a_transfer_of_nothing_is_none() -> None:
    assert progress.Meter(0).text(0.0).endswith("0 of 0 MiB (0%)")


def test_a_transfer_is_drawn_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("pushing"):
        progress.Meter(10).add(5)
    assert "[#" not in capsys.readouterr().err
    with contextlib.redirect_stderr(Terminal()) as terminal, progress.step("pushing"):
        progress.Meter(10).add(5)
    assert "[##########..........]" in terminal.getvalue()
