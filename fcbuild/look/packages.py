"""Which packages an image has: from the databases of dpkg and of apk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fcbuild.look.tree import Tree
from fcbuild.packages import apk, dpkg

Manager = Literal["dpkg", "apk"]

DPKG = "/var/lib/dpkg/status"
APK = ("/usr/lib/apk/db/installed", "/lib/apk/db/installed")  # from Alpine 3.22 on, and before

Packages = Mapping[tuple[Manager, str], str]


def installed(tree: Tree) -> Packages:
    """Return the version of each package, by manager and name."""
    found: dict[tuple[Manager, str], str] = {}
    for name, version in dpkg(tree.text(DPKG)):
        found["dpkg", name] = version
    for path in APK:
        for package in apk(tree.text(path)):
            found["apk", package.name] = package.version
    return found
