"""Pinned files: sources in order, every byte checked, nothing wrong is kept."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Callable
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path

import pytest

from fcbuild import fetch
from fcbuild.errors import SourceError
from fcbuild.fetch import Source, obtain

GOOD = b"the pinned bytes"
SHA = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def source(title: str, data: bytes | Exception, asked: list[str], sha: str = SHA) -> Source:
    def get(to: Path) -> None:
        asked.append(title)
        if isinstance(data, Exception):
            raise data
        to.write_bytes(data)

    return Source(title=title, sha256=sha, fetch=get)


def test_the_first_source_that_has_it_wins(downloads: Path) -> None:
    asked: list[str] = []
    sources = [
        source("one", SourceError("answers 404"), asked),
        source("two", GOOD, asked),
        source("three", GOOD, asked),
    ]
    path, used = obtain("a file", sources, downloads)
    assert path.read_bytes() == GOOD
    assert used.title == "two"
    assert asked == ["one", "two"]
    assert [file.name for file in downloads.iterdir()] == [SHA]


def test_a_file_that_is_held_is_not_fetched_again(downloads: Path) -> None:
    asked: list[str] = []
    obtain("a file", [source("one", GOOD, asked)], downloads)
    path, used = obtain("a file", [source("two", GOOD, asked)], downloads)
    assert (path.read_bytes(), used.title, asked) == (GOOD, "two", ["one"])


def test_a_held_file_that_has_rotted_is_fetched_again(downloads: Path) -> None:
    downloads.mkdir()
    (downloads / SHA).write_bytes(b"rotten")
    asked: list[str] = []
    path, _ = obtain("a file", [source("one", GOOD, asked)], downloads)
    assert (path.read_bytes(), asked) == (GOOD, ["one"])


def test_each_source_has_its_own_hash(downloads: Path) -> None:
    asked: list[str] = []
    other = hashlib.sha256(b"other").hexdigest()
    sources = [
        source("one", SourceError("gone"), asked),
        source("two", b"other", asked, sha=other),
    ]
    assert obtain("a file", sources, downloads)[0].name == other


@pytest.mark.parametrize("bad", [b"", b"the pinned byteS"])
def test_other_bytes_are_not_kept_and_the_next_source_is_asked(downloads: Path, bad: bytes) -> None:
    asked: list[str] = []
    path, used = obtain(
        "a file", [source("one", bad, asked), source("two", GOOD, asked)], downloads
    )
    assert (path.read_bytes(), used.title) == (GOOD, "two")
    assert [file.name for file in downloads.iterdir()] == [SHA]


def test_every_answer_is_told_when_no_source_has_it(downloads: Path) -> None:
    asked: list[str] = []
    sources = [
        source("one", SourceError("answers 404"), asked),
        source("two", b"bad", asked),
        Source(title="three", sha256=SHA, fetch=lambda to: None),
    ]
    with pytest.raises(SourceError) as caught:
        obtain("a file", sources, downloads)
    message = caught.value.message
    assert message.startswith("a file: no source has the pinned file:")
    assert "  one: answers 404" in message
    got = hashlib.sha256(b"bad").hexdigest()
    assert f"  two: hash mismatch: expected sha256 {SHA}, got {got}" in message
    assert "  three: hash mismatch" in message
    assert list(downloads.iterdir()) == []


def test_a_bug_in_a_source_is_not_taken_for_an_answer(downloads: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        obtain("a file", [source("one", ZeroDivisionError(), [])], downloads)
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x", "/etc/passwd"]
)
def test_only_https_is_asked(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "build_opener", lambda *args: pytest.fail("asked"))
    with pytest.raises(SourceError, match="not https"):
        fetch.download(url, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_redirect_to_http_is_refused() -> None:
    request = urllib.request.Request("https://example.org/x")
    handler = fetch._HttpsOnly()
    answer = (request, BytesIO(), 302, "Found", HTTPMessage())
    with pytest.raises(SourceError, match=r"http://example\.org/y, which is not https"):
        handler.redirect_request(*answer, "http://example.org/y")
    allowed = handler.redirect_request(*answer, "https://example.org/y")
    assert allowed is not None
    assert allowed.full_url == "https://example.org/y"


class Answer(BytesIO):
    """What an opener returns."""

    def __init__(self, data: bytes, length: str | None = None) -> None:
        super().__init__(data)
        self.headers = {"Content-Length": length} if length else {}


class Opener:
    def __init__(self, answer: Callable[[], Answer]) -> None:
        self.answer = answer

    def open(self, url: str, timeout: float) -> Answer:
        return self.answer()


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Answer]) -> None:
    monkeypatch.setattr(urllib.request, "build_opener", lambda *args: Opener(answer))


@pytest.mark.parametrize("length", [None, "16", "99"])
def test_a_download_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str | None
) -> None:
    answering(monkeypatch, lambda: Answer(GOOD, length))
    fetch.download("https://example.org/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == GOOD


def test_a_download_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 10)
    answering(monkeypatch, lambda: Answer(GOOD))
    with pytest.raises(SourceError, match="is larger than"):
        fetch.download("https://example.org/x", tmp_path / "x")


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError("refused"), TimeoutError("late"), http.client.BadStatusLine("junk")],
    ids=lambda error: type(error).__name__,
)
def test_trouble_on_the_network_is_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> Answer:
        raise error

    answering(monkeypatch, fail)
    with pytest.raises(SourceError, match=r"https://example\.org/x cannot be fetched: "):
        fetch.download("https://example.org/x", tmp_path / "x")


def test_a_length_that_is_no_number_is_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda: Answer(GOOD, "many"))
    with pytest.raises(SourceError):
        fetch.download("https://example.org/x", tmp_path / "x")
