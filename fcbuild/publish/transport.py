"""HTTP with one registry: who we are, what is tried again, where we may be led.

The only module that talks HTTP with a registry. Answers are a stranger's: bounded in size and time,
followed only to where nobody listens in, and no secret goes to another host than it is for.
Source of the rules: the OCI distribution specification, and Docker's for tokens
("Token Authentication Specification").
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from fcbuild import interruption, progress
from fcbuild.errors import ArtifactError, RegistryError, SpecError
from fcbuild.publish import credentials, oci
from fcbuild.publish.answers import Answer, Interrupted, Patience, reason, said, seconds
from fcbuild.publish.body import CHUNK, Body, Sending
from fcbuild.publish.credentials import Login
from fcbuild.publish.reference import Reference, loopback

PLAIN_HTTP = "FCBUILD_PLAIN_HTTP"  # registries, with commas between them, that have no TLS
MAX_ANSWER = oci.MAX_BYTES
PATIENCE = Patience()

_USER_AGENT = "fcbuild"
_MAX_REDIRECTS = 5
_AGAIN = {429, 500, 502, 503, 504}
_NO_PROXIES: dict[str, Any] = {"http": None, "https": None, "all": None}
_REDIRECTS = {301, 302, 303, 307, 308}
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)


class Transport:
    """Requests to one repository of one registry."""

    def __init__(
        self,
        reference: Reference,
        *,
        push: bool = False,
        patience: Patience = PATIENCE,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.reference = reference
        self.patience = patience
        self._environ = os.environ if environ is None else environ
        self._plain = loopback(reference.registry) or reference.registry in plain_http(
            self._environ
        )
        self._scope = f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"
        self._base: str | None = None
        self._authorization = ""
        self._session = requests.Session()
        self._session.headers["User-Agent"] = _USER_AGENT
        # What a registry compresses for the way would not be what its digest is of.
        self._session.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        self._session.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        good: Collection[int],
        body: bytes | Body | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = True,
    ) -> Answer:
        """Return the answer to a request. path: below /v2/REPOSITORY, or a whole URL.

        good: the statuses that the caller knows what to do with. again: whether a request that
        failed may be made again. Raises RegistryError, Interrupted for what may pass.
        """
        answer = self._send(method, self.url(path), body, headers or {}, again=again)
        with contextlib.closing(answer):
            content = b"" if method == "HEAD" else self._content(answer)
            if answer.status_code not in good:
                raise self._refusal(answer.status_code, content)
            if len(content) > MAX_ANSWER:
                raise ArtifactError(f"{self._host}: an answer of more than {MAX_ANSWER >> 20} MiB")
            return Answer(answer.status_code, answer.headers, content)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, good: Collection[int], headers: Mapping[str, str], deadline: float
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Get something large: yields the answer, without its body, and the pieces of that.

        deadline: of the monotonic clock, for the last of them.

        Raises RegistryError, Interrupted also while the pieces are read.
        """
        answer = self._send("GET", self.url(path), None, headers, again=True)
        with contextlib.closing(answer):
            if answer.status_code not in good:
                raise self._refusal(answer.status_code, self._content(answer))
            yield Answer(answer.status_code, answer.headers, b""), self._pieces(answer, deadline)

    def url(self, path: str) -> str:
        """Return the URL of a path below the repository; what is a URL is looked at."""
        if self._base is None:
            self._base = f"{self._scheme()}://{self._host}"
        url = path if "://" in path else f"{self._base}/v2/{self.reference.repository}{path}"
        self._permit(url)
        return url

    def location(self, answer: Answer, path: str) -> str:
        """Return where an answer sends us. Raises RegistryError for nowhere."""
        where = answer.headers.get("Location")
        if not where:
            raise RegistryError(f"{self._host} does not say where to go on: no Location")
        url = urljoin(self.url(path), where)
        self._permit(url)
        return url

    def pause(self, attempt: int, error: Interrupted) -> None:
        """Wait before another attempt. Raises the error where that is the end of our patience."""
        seconds = max(error.pause_s, self.patience.pause_s * 2 ** (attempt - 1))
        if attempt >= self.patience.attempts or error.pause_s > self.patience.longest_s:
            raise error
        progress.detail(f"{error.message}; trying again in {progress.duration(seconds)}")
        time.sleep(seconds)

    @property
    def _host(self) -> str:
        return self.reference.registry

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | Body | None,
        headers: Mapping[str, str],
        *,
        again: bool,
    ) -> requests.Response:
        attempt, logins = 1, 0
        while True:
            try:
                answer = self._follow(method, url, body, headers)
                if answer.status_code != 401 or logins == 2:
                    return self._settled(answer)
                # Once because a token is wanted, once more because one has run out.
                challenge = answer.headers.get("WWW-Authenticate", "")
                answer.close()
                self._log_in(challenge)
                logins += 1
            except Interrupted as error:
                if not again:
                    raise
                self.pause(attempt, error)
                attempt += 1

    def _settled(self, answer: requests.Response) -> requests.Response:
        """Return an answer, unless it says that another attempt may have another."""
        status, wait = answer.status_code, answer.headers.get("Retry-After")
        # Some answer 403 where they mean "too often".
        if status not in _AGAIN and not (status == 403 and wait):
            return answer
        with contextlib.closing(answer):
            words = said(self._content(answer))
        raise Interrupted(
            f"{self._host} answers {status}{words}", status=status, pause_s=seconds(wait)
        )

    def _follow(
        self, method: str, url: str, body: bytes | Body | None, headers: Mapping[str, str]
    ) -> requests.Response:
        for _ in range(_MAX_REDIRECTS):
            answer = self._once(method, url, body, headers)
            if answer.status_code not in _REDIRECTS or method not in {"GET", "HEAD"}:
                return answer
            answer.close()
            url = urljoin(url, answer.headers.get("Location", ""))
            self._permit(url)
        raise RegistryError(f"{self._host} leads in a circle")

    def _once(
        self, method: str, url: str, body: bytes | Body | None, headers: Mapping[str, str]
    ) -> requests.Response:
        # Always one of ours, or requests would take what it finds in ~/.netrc.
        authorization = self._authorization if self._is_own(url) else ""
        with contextlib.ExitStack() as opened:
            data: Any = body
            if body is not None and not isinstance(body, bytes):
                file = opened.enter_context(body.path.open("rb"))
                data = Sending(file, body.size, self.patience.deadline(body.size))
            try:
                return self._request(method, url, authorization, data=data, headers=dict(headers))
            except requests.exceptions.SSLError as error:
                raise self._untrusted(error) from error
            except ValueError as error:  # a URL that is none
                raise RegistryError(f"{self._host} cannot be asked: {reason(error)}") from error
            except _TROUBLE as error:
                raise Interrupted(f"{self._host} does not answer: {reason(error)}") from error

    def _request(self, method: str, url: str, authorization: str, **more: Any) -> requests.Response:
        """Make one request. Raises what requests does."""
        return self._session.request(
            method,
            url,
            auth=_Authorization(authorization),
            timeout=(self.patience.connect_s, self.patience.silence_s),
            allow_redirects=False,
            stream=True,
            # The environment's proxy has no business on this machine.
            proxies=_NO_PROXIES if loopback(urlsplit(url).netloc) else None,
            **more,
        )

    def _pieces(self, answer: requests.Response, deadline: float) -> Iterator[bytes]:
        """Yield what comes, as it comes: who sends a byte now and then is not waited for."""
        try:
            while piece := answer.raw.read1(CHUNK, decode_content=False):
                yield piece
                interruption.heed()
                if time.monotonic() > deadline:
                    raise RegistryError(
                        f"{self._host} is too slow", hint="what came is kept: try again later"
                    )
        except _TROUBLE as error:
            raise Interrupted(f"{self._host} broke off: {reason(error)}") from error

    def _content(self, answer: requests.Response) -> bytes:
        """Return the body of an answer; of one that is too long, more than is allowed."""
        found = b""
        for piece in self._pieces(answer, self.patience.deadline(MAX_ANSWER)):
            found += piece
            if len(found) > MAX_ANSWER:
                break
        return found

    def _scheme(self) -> str:
        """Return https, or http where that is allowed and the registry has no TLS."""
        if not self._plain:
            return "https"
        if not loopback(self._host):
            return "http"  # which was asked for
        try:
            with self._request("HEAD", f"http://{self._host}/v2/", "") as answer:
                # What servers with TLS answer to who talks without.
                return "https" if answer.status_code == 400 else "http"
        except requests.exceptions.RequestException as error:
            return "http" if "refused" in reason(error) else "https"

    def _permit(self, url: str) -> None:
        """Raise RegistryError for a URL that others could read along."""
        parts = urlsplit(url)
        own = self._plain and loopback(parts.netloc) and loopback(self._host)
        if parts.scheme == "https" or (
            parts.scheme == "http" and (own or (self._plain and self._is_own(url)))
        ):
            return
        raise RegistryError(
            f"{self._host} leads to {parts.scheme}://{parts.netloc}, which is not https",
            hint=f"plain http is for this machine, and for what {PLAIN_HTTP} names",
        )

    def _is_own(self, url: str) -> bool:
        return urlsplit(url).netloc == self._host

    # Who we are.

    def _log_in(self, challenge: str) -> None:
        """Get what the registry wants to see with each request. Raises RegistryError."""
        login = credentials.find(self._host, self.reference.repository, environ=self._environ)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            if login is None or login.token:
                raise self._denied(401, "")
            self._authorization = login.basic
        elif kind.lower() == "bearer":
            told = {key.lower(): value for key, value in _CHALLENGE.findall(rest)}
            self._authorization = f"Bearer {self._token(told, login)}"
        else:
            raise RegistryError(f"{self._host} wants a login of a kind that is not known: {kind!r}")

    def _token(self, told: Mapping[str, str], login: Login | None) -> str:
        realm = told.get("realm", "")
        self._permit(realm)
        # What we are going to do, whatever the first request of it was.
        wanted = {"service": told.get("service", ""), "scope": self._scope}
        try:
            if login and login.token:
                form = {
                    **wanted,
                    "grant_type": "refresh_token",
                    "refresh_token": login.token,
                    "client_id": _USER_AGENT,
                }
                answer = self._request("POST", realm, "", data=form)
            else:
                basic = login.basic if login else ""
                answer = self._request("GET", realm, basic, params=wanted)
        except _TROUBLE as error:
            raise Interrupted(
                f"{urlsplit(realm).netloc}, which gives tokens for {self._host}, does not answer: "
                f"{reason(error)}"
            ) from error
        with contextlib.closing(self._settled(answer)):
            content = self._content(answer)
        if answer.status_code != 200:
            raise self._denied(answer.status_code, "")
        found = oci.parse(content, what=f"the token for {self._host}")
        token = found.get("token") or found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise RegistryError(f"{self._host}: no token in the answer of its token service")
        return token

    # What went wrong, in words.

    def _refusal(self, status: int, content: bytes) -> RegistryError:
        if status in {401, 403}:
            return self._denied(status, said(content))
        hint = None
        if status == 404:
            hint = "look at the reference; a repository that one may not see looks as if missing"
        return RegistryError(
            f"{self.reference.name}: {self._host} answers {status}{said(content)}",
            status=status,
            hint=hint,
        )

    def _denied(self, status: int, words: str) -> RegistryError:
        return RegistryError(
            f"{self.reference.name}: denied ({status}){words}",
            status=status,
            hint=f"log in: docker login {self._host}, or REGISTRY_AUTH_FILE, DOCKER_AUTH_CONFIG",
        )

    def _untrusted(self, error: Exception) -> RegistryError:
        return RegistryError(
            f"{self._host}: no TLS connection that can be trusted: {reason(error)}",
            hint="a certificate authority of your own: REQUESTS_CA_BUNDLE=FILE; for a registry "
            f"without TLS: {PLAIN_HTTP}={self._host}",
        )


def plain_http(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the registries that are asked without TLS. Raises SpecError."""
    names = [name.strip() for name in environ.get(PLAIN_HTTP, "").split(",") if name.strip()]
    for name in names:
        if "/" in name:
            raise SpecError([f"{PLAIN_HTTP}: {name!r} is not HOST[:PORT]"])
    return frozenset(names)


class _Authorization(requests.auth.AuthBase):
    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


# What another attempt may not meet.
_TROUBLE = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
    OSError,
)
