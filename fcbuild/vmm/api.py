"""Firecracker's API over its unix socket. The only module that talks HTTP with a VMM."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
import requests_unixsocket

from fcbuild.errors import ApiError, VmmError

TIMEOUT_S = 30.0  # for one call; an emulated host needs seconds to load a kernel
_SHOWN = 300  # characters of an answer that is not JSON


class Api:
    """A client of one Firecracker."""

    def __init__(self, socket: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._base = f"http+unix://{quote(str(socket), safe='')}"
        self._timeout_s = timeout_s

    def version(self) -> str:
        """Return Firecracker's version. Raises ApiError, VmmError."""
        answer = self._call("GET", "/version")
        try:
            return str(answer["firecracker_version"])
        except (KeyError, TypeError) as error:
            raise VmmError(f"Firecracker does not say its version: {answer!r}") from error

    def put(self, path: str, body: dict[str, Any]) -> None:
        """Configure one resource. Raises ApiError with Firecracker's own fault message."""
        self._call("PUT", path, body)

    def action(self, kind: str) -> None:
        """Ask for InstanceStart, SendCtrlAltDel or FlushMetrics."""
        self._call("PUT", "/actions", {"action_type": kind})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            # A session keeps a connection open for each path, and Firecracker takes ten in all.
            with requests_unixsocket.Session() as session:
                # A proxy from the environment has no business on a local socket.
                session.trust_env = False
                answer = session.request(
                    method, self._base + path, json=body, timeout=self._timeout_s
                )
        except requests.exceptions.Timeout as error:
            raise VmmError(
                f"Firecracker did not answer {method} {path} within {self._timeout_s:.0f} s"
            ) from error
        except requests.exceptions.RequestException as error:
            raise VmmError(
                f"Firecracker's API socket failed at {method} {path}: {error}"
            ) from error
        if answer.ok:
            try:
                return answer.json() if answer.content else None
            except ValueError as error:
                raise VmmError(
                    f"Firecracker's answer to {method} {path} is not JSON: {answer.text[:_SHOWN]!r}"
                ) from error
        raise ApiError(method, path, answer.status_code, _fault(answer))


def _fault(answer: requests.Response) -> str:
    try:
        return str(answer.json()["fault_message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:_SHOWN] or "(no message)"
