"""What a package manager's database says is installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


def dpkg(status: str) -> Iterator[tuple[str, str]]:
    """Yield names and versions of the installed packages. One that is installed for several
    architectures has them in its name: libc6:i386."""
    found: dict[tuple[str, str], str] = {}
    for fields in _paragraphs(status, ": "):
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            found[fields["Package"], fields.get("Architecture", "")] = fields.get("Version", "")
    times = Counter(name for name, _ in found)
    for (name, architecture), version in found.items():
        yield name if times[name] == 1 else f"{name}:{architecture}", version


def apk(database: str) -> Iterator[tuple[str, str]]:
    """Yield names and versions of the installed packages."""
    for fields in _paragraphs(database, ":"):
        if "P" in fields:
            yield fields["P"], fields.get("V", "")


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
