"""What an artifact in a registry is called: REGISTRY/REPOSITORY[:TAG][@sha256:HEX].

The grammar is the OCI distribution specification's (section "Pulling manifests"). No registry is
meant when none is named: where something is published to is not to be guessed.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from fcbuild.errors import SpecError

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LATEST = "latest"  # the tag where neither tag nor digest is said

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
_MAX_REPOSITORY = 255
_SHOWN = 100  # characters of what is wrong


class Reference(NamedTuple):
    """One artifact. registry: host[:port]. digest: sha256:HEX, which counts where both are said."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """The digest, or else the tag: what a registry is asked for."""
        return self.digest or self.tag or LATEST

    def tagged(self, tag: str) -> Reference:
        return self._replace(tag=tag, digest=None)

    def pinned(self, digest: str) -> Reference:
        return self._replace(digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str, *, what: str = "reference") -> Reference:
    """Read a reference. what: how messages call it. Raises SpecError with the part that is
    wrong."""

    def wrong(part: str, got: str, expected: str) -> SpecError:
        return SpecError(
            [f"{what}={text[:_SHOWN]}: {part} {got[:_SHOWN]!r}: expected {expected}"],
            hint="a reference is REGISTRY/REPOSITORY[:TAG] or REGISTRY/REPOSITORY@sha256:DIGEST",
        )

    if "://" in text:
        raise wrong("scheme", text.partition("://")[0], "none: leave out what is before the host")
    rest, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise wrong("digest", digest, "sha256: and 64 hexadecimal digits")
    registry, slash, path = rest.partition("/")
    if not slash or not _is_host(registry):
        raise wrong(
            "registry",
            registry if slash else rest,
            "a host, like registry.example.com or localhost:5000",
        )
    repository, colon, tag = path.partition(":")
    if colon and not TAG.fullmatch(tag):
        raise wrong("tag", tag, "at most 128 letters, digits, '_', '.' and '-'")
    if len(repository) > _MAX_REPOSITORY:
        raise wrong("repository", repository, f"at most {_MAX_REPOSITORY} characters")
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise wrong(
                "repository",
                repository,
                "lower case letters and digits, joined by '.', '_', '-', '/'",
            )
    return Reference(registry, repository, tag or None, digest or None)


def loopback(registry: str) -> bool:
    """Return whether a registry is on this machine."""
    host = registry.rpartition(":")[0] if re.search(r":[0-9]+\Z", registry) else registry
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    if not _HOST.fullmatch(text):
        return False
    # `user/image` names a repository of whatever registry somebody else would think of.
    port = re.search(r":([0-9]+)\Z", text)
    if port and not 0 < int(port[1]) < 1 << 16:
        return False
    return "." in text or bool(port) or text == "localhost" or text.startswith("[")
