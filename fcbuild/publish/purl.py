"""Package URLs: names of packages that every scanner knows. Pure.

    pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIER=VALUE&...

(https://github.com/package-url/purl-spec)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from fcbuild.packages import Package

_SAFE = ":"  # is not encoded, besides letters, digits and -._~
_VENDOR = {"deb": "debian", "apk": "alpine"}  # of an image that does not say what it is
_ID = re.compile(r"[a-z0-9._-]{1,64}")


def of(package: Package, distribution: Mapping[str, str]) -> str:
    """Return the URL of an installed package. distribution: the fields of its os-release."""
    if package.ecosystem in _VENDOR:
        vendor = distribution.get("ID", "")
        vendor = vendor if _ID.fullmatch(vendor) else _VENDOR[package.ecosystem]
        release = distribution.get("VERSION_ID", "")
        # `upstream` is where scanners look for the source package, which advisories are about.
        upstream = "@".join(filter(None, (package.source, package.source_version)))
        return make(
            package.ecosystem,
            f"{vendor}/{package.name.lower()}",
            package.version,
            arch=package.architecture,
            distro=f"{vendor}-{release}" if release else vendor,
            upstream=upstream,
        )
    name = package.name
    if package.ecosystem == "pypi":  # names are the same in any case, and with either sign
        name = name.lower().replace("_", "-")
    return make(package.ecosystem, name, package.version)


def make(kind: str, name: str, version: str = "", **qualifiers: str) -> str:
    """Return the URL of a package. name: with the namespace before it, if there is one; empty
    qualifiers are left out."""
    path = "/".join(quote(part, safe=_SAFE) for part in name.split("/"))
    at = f"@{quote(version, safe=_SAFE)}" if version else ""
    asked = "&".join(
        f"{key}={quote(value, safe=_SAFE)}" for key, value in sorted(qualifiers.items()) if value
    )
    return f"pkg:{kind}/{path}{at}" + (f"?{asked}" if asked else "")
