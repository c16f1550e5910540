"""Fetch pinned files: sources tried in order, every byte checked by sha256 before it is used."""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from fcbuild import interruption, progress
from fcbuild.errors import FcBuildError, SourceError
from fcbuild.fingerprint import digest

CONNECT_TIMEOUT_S = 20.0  # for a connection, and for each read of it
MAX_BYTES = 1 << 30  # no pinned file is larger; a hostile server must not fill the disk
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """One way to get a file: `fetch` writes it to the path it is given.

    title: how messages name it. sha256: what the written file must have.
    """

    title: str
    sha256: str
    fetch: Callable[[Path], None]


def obtain(what: str, sources: Sequence[Source], downloads: Path) -> tuple[Path, Source]:
    """Return the file from the first source that has it, and which source that was.

    Files are kept in `downloads` under their sha256, so a source is asked once. A file that is not
    the pinned one is removed. Raises SourceError with what every source answered.
    """
    for source in sources:
        kept = downloads / source.sha256
        if kept.is_file() and digest(kept) == source.sha256:
            with contextlib.suppress(OSError):
                os.utime(kept)  # gc goes by the last use
            return kept, source
    downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
    answers = []
    for source in sources:
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=downloads) as scratch:
            arrived = Path(scratch, "file")
            arrived.touch()  # ours, also where a container's root writes it
            try:
                with progress.step(f"fetching {what} from {source.title}"):
                    source.fetch(arrived)
            except FcBuildError as error:
                answers.append(f"  {source.title}: {error.message}")
                progress.say(f"{what}: {source.title} does not have it, trying the next source")
                continue
            got = digest(arrived)
            if got != source.sha256:
                answers.append(
                    f"  {source.title}: hash mismatch: expected sha256 {source.sha256}, got {got}"
                )
                progress.say(f"{what}: {source.title} has other bytes than the pinned ones")
                continue
            kept = downloads / source.sha256
            arrived.chmod(0o600)
            arrived.replace(kept)
            return kept, source
    raise SourceError(
        "\n".join([f"{what}: no source has the pinned file:", *answers]),
        hint="a distribution keeps only its newest versions: move the pin, or check the network",
    )


def download(url: str, to: Path) -> None:
    """Download a URL (https only, redirects too) to a file. Raises SourceError."""
    if not url.startswith("https://"):
        raise SourceError(f"{url} is not https")
    try:
        with (
            urllib.request.build_opener(_HttpsOnly).open(url, timeout=CONNECT_TIMEOUT_S) as answer,
            to.open("wb") as file,
        ):
            total = int(answer.headers.get("Content-Length") or 0)
            done = 0
            while chunk := answer.read(_CHUNK):
                interruption.heed()
                done += len(chunk)
                if done > MAX_BYTES:
                    raise SourceError(f"{url} is larger than {MAX_BYTES >> 20} MiB")
                file.write(chunk)
                part = f" of {total >> 20} MiB ({100 * done // total} %)" if total else ""
                progress.detail(f"{done >> 20} MiB{part}")
    except urllib.error.HTTPError as error:
        raise SourceError(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SourceError(f"{url} cannot be fetched: {reason}") from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise SourceError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
