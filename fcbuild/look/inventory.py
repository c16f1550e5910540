"""All that is installed in a root filesystem, with where it says so: what an SBOM is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fcbuild.errors import ImageError
from fcbuild.look.entry import Entry
from fcbuild.look.packages import APK, DPKG
from fcbuild.look.tree import Tree
from fcbuild.packages import Package, apk, deb, npm, python

# Nobody's image has more; a database of 64 MiB could name millions.
MAX_PACKAGES = 100_000
_MAX_METADATA = 4 << 20  # bytes of one package's own metadata; its description is in it
_MAX_WORD = 256  # characters of a name, a version

_OS_RELEASE = "/etc/os-release"  # os-release(5)
_DPKG_PARTS = "/var/lib/dpkg/status.d"  # of images without dpkg: a file for each package
_PYTHON = re.compile(r".*(\.dist-info/METADATA|\.egg-info/PKG-INFO|\.egg-info)", re.DOTALL)
_NPM = re.compile(r".*/node_modules/(@[^/]+/)?[^/@][^/]*/package\.json", re.DOTALL)


class Inventory(NamedTuple):
    """What is installed. packages: each with the files that say so, sorted. distribution: the
    fields of os-release. unreadable: files that describe a package, but none that makes sense."""

    packages: Mapping[Package, tuple[str, ...]]
    distribution: Mapping[str, str]
    unreadable: tuple[str, ...]


def take(tree: Tree) -> Inventory:
    """Return what the databases of dpkg and apk, and the metadata of Python's and npm's packages,
    say is installed; the same for the same files, whatever reads them. Raises ImageError."""
    found: dict[Package, set[str]] = {}
    unreadable: set[str] = set()
    for path, package in _packages(tree):
        if package is None or not _sensible(package):
            unreadable.add(path)
            continue
        found.setdefault(package, set()).add(path)
        if len(found) > MAX_PACKAGES:
            raise ImageError(f"the image has more than {MAX_PACKAGES} packages, by {path}")
    return Inventory(
        packages={package: tuple(sorted(found[package])) for package in sorted(found)},
        distribution=_fields(tree.text(_OS_RELEASE)),
        unreadable=tuple(sorted(unreadable)),
    )


def _packages(tree: Tree) -> Iterator[tuple[str, Package | None]]:
    """Yield what each file describes; None for one that describes nothing."""
    yield from ((DPKG, package) for package in deb(tree.text(DPKG)))
    for path in APK:
        yield from ((path, package) for package in apk(tree.text(path)))
    for entry in tree.entries.values():
        if entry.kind != "file":
            continue
        path = entry.path
        if entry.parent == _DPKG_PARTS and not path.endswith(".md5sums"):
            for package in deb(_text(tree, entry), all_installed=True):
                yield path, package
        elif _PYTHON.fullmatch(path):
            yield path, python(_text(tree, entry))
        elif _NPM.fullmatch(path):
            yield path, npm(_content(tree, entry))


def _content(tree: Tree, entry: Entry) -> bytes:
    """Return a file's bytes, none of one that is too large to describe a package."""
    return b"" if entry.size > _MAX_METADATA else b"".join(tree.reader.read(entry))


def _text(tree: Tree, entry: Entry) -> str:
    return _content(tree, entry).decode("utf-8", "surrogateescape")


def _sensible(package: Package) -> bool:
    """Return whether a package's fields are what fields are: single words, of some length."""
    _, name, version, *others = package
    words = [name, version, *filter(None, others)]
    return all(
        0 < len(word) <= _MAX_WORD and word.isprintable() and " " not in word for word in words
    )


def _fields(text: str) -> dict[str, str]:
    """Read os-release: NAME=VALUE, VALUE in quotes or not."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        value = value.strip().strip("\"'")
        if equals and name.isidentifier() and len(value) <= _MAX_WORD and value.isprintable():
            found.setdefault(name, value)
    return found
