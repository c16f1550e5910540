"""What a registry answers, and what to make of it: ask again or not, and how to say it. Pure."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from fcbuild.errors import ArtifactError, RegistryError
from fcbuild.publish import oci

_SHOWN = 200  # characters of a registry's own words


class Patience(NamedTuple):
    """How much is waited for. attempts: of one request. connect_s, silence_s: for a connection, and
    for the next byte. pause_s: before the second attempt, twice that before the third, and so on.
    longest_s: the longest pause that a registry may ask for. rate: the slowest transfer that is
    waited for, in bytes a second."""

    attempts: int = 5
    connect_s: float = 20.0
    silence_s: float = 60.0
    pause_s: float = 0.5
    longest_s: float = 120.0
    rate: int = 16 << 10

    def deadline(self, size: int) -> float:
        """Return until when a transfer of so many bytes has to be done."""
        return time.monotonic() + self.silence_s + size / self.rate


class Interrupted(RegistryError):
    """A request that may succeed when it is made again. pause_s: what the registry asks for."""

    def __init__(self, message: str, *, status: int = 0, pause_s: float = 0.0) -> None:
        super().__init__(message, status=status, hint="try again later")
        self.pause_s = pause_s


class Answer(NamedTuple):
    """What a registry said. headers: looked up without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def said(content: bytes) -> str:
    """Return a registry's own words, of an answer that is an error."""
    try:
        first = oci.parse(content, what="")["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (ArtifactError, LookupError, TypeError, AttributeError):
        return ""
    return f" ({''.join(c if c.isprintable() else ' ' for c in text)[:_SHOWN]})"


def codes(content: bytes) -> set[str]:
    """Return the codes of an answer that is an error, as NAME_UNKNOWN."""
    try:
        return {str(one["code"]) for one in oci.parse(content, what="")["errors"]}
    except (ArtifactError, LookupError, TypeError):
        return set()


def seconds(wait: str | None) -> float:
    """Return the pause that a Retry-After asks for: seconds, or a date."""
    if wait is None:
        return 0.0
    if re.fullmatch(r"[0-9]{1,9}", wait.strip()):
        return float(wait)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(wait).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def reason(error: BaseException) -> str:
    """Return why a request failed, without the URL that requests would put there: it may hold what
    lets anybody fetch from it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None and seen.strerror:
            return seen.strerror
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    words = re.findall(r"[A-Z]?[a-z]+", type(error).__name__)
    return " ".join(words).lower() or type(error).__name__
