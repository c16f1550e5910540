"""What a registry answers: how long to wait, and how to say it."""

from __future__ import annotations

import email.utils
import json
import time

import pytest
import requests
import urllib3

from fcbuild.publish import answers

SECRET = "X-Signature=s3cret"


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [(None, 0.0), ("0", 0.0), (" 12 ", 12.0), ("-1", 0.0), ("soon", 0.0), ("9" * 30, 0.0)],
)
def test_a_retry_after_is_seconds(wait: str | None, seconds: float) -> None:
    assert answers.seconds(wait) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    then = email.utils.formatdate(time.time() + 90, usegmt=True)
    assert 85 < answers.seconds(then) <= 90
    assert answers.seconds(email.utils.formatdate(0, usegmt=True)) == 0.0


def test_a_registrys_own_words_are_shown_and_not_believed() -> None:
    def said(**error: object) -> str:
        return answers.said(json.dumps({"errors": [error]}).encode())

    assert said(code="DENIED", message="no access") == " (DENIED: no access)"
    assert said(code="X", message="a\x1b[2Jb\nc").isprintable()
    assert len(said(code="X", message="y" * 10_000)) < 300
    for odd in (b"", b"<html>", b"[]", b'{"errors": []}', b'{"errors": [1]}', b'{"errors": {}}'):
        assert answers.said(odd) == ""
        assert answers.codes(odd) == set()


def test_a_reason_says_what_and_not_where() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    inner = urllib3.exceptions.NewConnectionError(None, "to somewhere")  # type: ignore[arg-type]
    inner.__cause__ = refused
    pool = urllib3.exceptions.MaxRetryError(None, f"/blobs?{SECRET}", inner)  # type: ignore[arg-type]
    outer = requests.exceptions.ConnectionError(pool)
    assert answers.reason(outer) == "Connection refused"
    unknown = requests.exceptions.ConnectionError(f"https://example.com/?{SECRET}")
    assert answers.reason(unknown) == "connection error"


def test_patience_ends_with_the_size() -> None:
    patience = answers.Patience(silence_s=10, rate=1000)
    assert patience.deadline(50_000) - time.monotonic() == pytest.approx(60, abs=1)
