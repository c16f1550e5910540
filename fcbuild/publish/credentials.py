"""Who we are to a registry: found where container tools keep it, kept in memory, never shown.

Looked at in this order, the first that knows the registry counts:

    DOCKER_AUTH_CONFIG                     the text of a config.json, as CI systems hand it over
    REGISTRY_AUTH_FILE                     a file of that form
    $XDG_RUNTIME_DIR/containers/auth.json  what podman, buildah and skopeo write
    $DOCKER_CONFIG/config.json             what `docker login` writes; ~/.docker when not set

Of a document, first `credHelpers` (a program for one registry), then `auths`, then `credsStore` (a
program for all). Forms: docker-credential-helpers' README and containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from fcbuild.errors import FcBuildError, RegistryError
from fcbuild.run import run

HELPER_TIMEOUT_S = 60.0
_MAX_BYTES = 4 << 20
_NOBODY = "credentials not found"  # what helpers print for a registry they do not know
_TOKEN_USER = "<token>"  # whose secret is an identity token, not a password
_PROGRAM = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Login(NamedTuple):
    """A user and a password, or an identity token, to get tokens for. No message may show it."""

    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Login(...)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


Helper = Callable[[str, str], bytes]  # name of the helper, registry -> its answer


def find(
    registry: str,
    repository: str,
    *,
    environ: Mapping[str, str] | None = None,
    helper: Helper | None = None,
) -> Login | None:
    """Return the login for a repository, or None. Raises RegistryError for a document or a helper
    that cannot be used."""
    for where, document in _documents(os.environ if environ is None else environ):
        if login := _login(document, registry, repository, where, helper or _ask):
            return login
    return None


def _documents(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if text := environ.get("DOCKER_AUTH_CONFIG"):
        yield "DOCKER_AUTH_CONFIG", _parse(text.encode(), "DOCKER_AUTH_CONFIG")
    home = environ.get("HOME", "/")
    files = [
        (environ.get("REGISTRY_AUTH_FILE"), ""),
        (environ.get("XDG_RUNTIME_DIR"), "containers/auth.json"),
        (environ.get("DOCKER_CONFIG") or f"{home}/.docker", "config.json"),
    ]
    for directory, name in files:
        if not directory:
            continue
        path = Path(directory, name)
        try:
            with path.open("rb") as file:
                text_of = file.read(_MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise RegistryError(f"{path} cannot be read: {error.strerror}") from error
        yield str(path), _parse(text_of, str(path))


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None  # its error would quote the text
    if not isinstance(found, dict):
        raise RegistryError(f"{where}: not a document of logins (a JSON object)")
    return found


def _login(
    document: dict[str, Any], registry: str, repository: str, where: str, helper: Helper
) -> Login | None:
    helpers = document.get("credHelpers")
    if isinstance(helpers, dict) and isinstance(program := helpers.get(registry), str):
        return _helped(program, registry, where, helper)
    auths = document.get("auths")
    entries = auths if isinstance(auths, dict) else {}
    for key in _keys(registry, repository):
        entry = entries.get(key)
        # A store leaves an empty entry for each registry that it knows.
        if isinstance(entry, dict) and entry:
            return _entry(entry, where, key)
    store = document.get("credsStore")
    return _helped(store, registry, where, helper) if isinstance(store, str) and store else None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Yield what a login may stand under, the most special first."""
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:count]])
    yield registry
    for scheme in ("https", "http"):  # as old versions wrote them
        for path in ("", "/", "/v1/", "/v2/"):
            yield f"{scheme}://{registry}{path}"


def _entry(entry: dict[str, Any], where: str, key: str) -> Login:
    token, auth = entry.get("identitytoken"), entry.get("auth")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(auth, str) and auth:
        try:
            pair = base64.b64decode(auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""  # its error would hold the secret
        user, colon, password = pair.partition(":")
        if not colon:
            raise RegistryError(f"{where}: auths: {key}: auth is not the base64 of USER:PASSWORD")
        password = password.rstrip("\0")
    return Login(
        user if isinstance(user, str) else "",
        password if isinstance(password, str) else "",
        token if isinstance(token, str) else "",
    )


def _helped(program: str, registry: str, where: str, helper: Helper) -> Login | None:
    if not _PROGRAM.fullmatch(program):
        raise RegistryError(f"{where}: {program[:64]!r} cannot be a credential helper's name")
    answer = helper(program, registry)
    if not answer:
        return None
    try:
        found = json.loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError(
            f"docker-credential-{program}: its answer for {registry} is no login"
        ) from None
    return Login(token=secret) if user == _TOKEN_USER else Login(user, secret)


def _ask(program: str, registry: str) -> bytes:
    """Ask a credential helper; return its answer, empty for a registry that it does not know."""

    def ask(pipe: IO[bytes]) -> None:
        pipe.write(registry.encode())

    # Memory that has no name: the secret never is in a file.
    with os.fdopen(os.memfd_create("login", os.MFD_CLOEXEC), "w+b") as answer:
        try:
            run(
                [f"docker-credential-{program}", "get"],
                what=f"asking for the login of {registry}",
                stdin=ask,
                stdout=answer,
                timeout_s=HELPER_TIMEOUT_S,
            )
        except FcBuildError as error:
            answer.seek(0)
            if _NOBODY in answer.read(_MAX_BYTES).decode("utf-8", "replace"):
                return b""
            raise RegistryError(
                f"docker-credential-{program} does not give the login of {registry}: "
                f"{error.message.splitlines()[0]}"
            ) from None
        answer.seek(0)
        return answer.read(_MAX_BYTES)
