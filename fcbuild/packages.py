"""What a package manager's database says is installed: those of dpkg and apk, and the metadata that
Python's and npm's packages carry. All of it is a stranger's text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

# As package URLs name them. (https://github.com/package-url/purl-spec, types)
Ecosystem = Literal["deb", "apk", "pypi", "npm"]

_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")


class Package(NamedTuple):
    """An installed package. source, source_version: of the source package that it was built from,
    where the database says so; "" where what a field would hold is not said."""

    ecosystem: Ecosystem
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    source_version: str = ""


def dpkg(status: str) -> Iterator[tuple[str, str]]:
    """Yield names and versions of the installed packages. One that is installed for several
    architectures has them in its name: libc6:i386."""
    found = {(one.name, one.architecture): one.version for one in deb(status)}
    times = Counter(name for name, _ in found)
    for (name, architecture), version in found.items():
        yield name if times[name] == 1 else f"{name}:{architecture}", version


def deb(status: str, *, all_installed: bool = False) -> Iterator[Package]:
    """Yield the installed packages of dpkg's status file. all_installed: of a part of one that says
    of none whether it is, as images without dpkg have them."""
    for fields in _paragraphs(status, ": "):
        installed = all_installed or fields.get("Status", "").endswith(" installed")
        if installed and "Package" in fields:
            source = _SOURCE.fullmatch(fields.get("Source", ""))
            yield Package(
                "deb",
                fields["Package"],
                fields.get("Version", ""),
                fields.get("Architecture", ""),
                source[1] if source else "",
                source[2] or "" if source else "",
            )


def apk(database: str) -> Iterator[Package]:
    """Yield the installed packages."""
    for fields in _paragraphs(database, ":"):
        if "P" in fields:
            version, origin = fields.get("V", ""), fields.get("o", "")
            source = origin if origin != fields["P"] else ""
            yield Package("apk", fields["P"], version, fields.get("A", ""), source)


def python(metadata: str) -> Package | None:
    """Return what METADATA or PKG-INFO describes, or None where it has no name and version.
    (https://packaging.python.org/en/latest/specifications/core-metadata/)"""
    header = metadata.replace("\r\n", "\n").partition("\n\n")[0]
    for fields in _paragraphs(header, ":"):
        name, version = fields.get("Name", "").strip(), fields.get("Version", "").strip()
        return Package("pypi", name, version) if name and version else None
    return None


def npm(document: bytes) -> Package | None:
    """Return what a package.json describes, or None where it has no name and version."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    name, version = found.get("name"), found.get("version")
    if isinstance(name, str) and isinstance(version, str) and name and version:
        return Package("npm", name, version)
    return None


def _paragraphs(text: str, separator: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph; lines that go on with one before are left out."""
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in paragraph.split("\n"):
            name, found, value = line.partition(separator)
            if found and not line.startswith((" ", "\t")):
                fields.setdefault(name, value)
        if fields:
            yield fields
