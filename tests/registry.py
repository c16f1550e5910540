"""A container registry on loopback, for tests: Debian's docker-registry, on a free port.

An engine takes plain http from 127.0.0.0/8 without being told to. With accounts, there is one:
USER with PASSWORD. With TLS, the certificate is the one that openssl has just made.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_STARTS_WITHIN_S = 20
_LISTENING = re.compile(rb"listening on (127\.0\.0\.1:\d+)")

_CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0"{tls}}}
{auth}
"""

USER, PASSWORD = "robot", "pa55:word"
# htpasswd -nbB -C 4 USER PASSWORD
_HTPASSWD = "robot:$2y$04$aH8cUL4q3vwX70A8fkh0KuxazG3Yw8mkOsY2lhpBTC0/1vdOu0CiO\n"


@dataclass(frozen=True)
class Registry:
    """A running registry. host: its address and port, with which its references begin.
    certificate: of one with TLS. files: where it keeps what it holds."""

    host: str
    files: Path
    certificate: Path | None = None

    def reference(self, name: str) -> str:
        return f"{self.host}/{name}"

    def push(self, name: str, **files: str) -> str:
        """Push an image of these files (name -> text) as NAME:TAG, and let the engine forget it;
        return the reference."""
        reference = self.reference(name)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, text in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
        _docker("import", "-", reference, stdin=buffer.getvalue())
        _docker("push", reference)
        forget(reference)
        return reference


def forget(reference: str) -> None:
    """Let the engine drop an image, so that it has to ask the registry again."""
    _docker("image", "rm", "--force", reference)


@contextmanager
def serve(directory: Path, *, accounts: bool = False, tls: bool = False) -> Iterator[Registry]:
    """Run a registry that keeps its images in `directory`, on a free port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    config, certificate = directory / "config.yml", directory / "certificate.pem"
    files, auth, tls_text = directory / "images", "", ""
    if accounts:
        (directory / "htpasswd").write_text(_HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: test, path: {directory / 'htpasswd'}}}}}"
    if tls:
        key = _certify(certificate)
        tls_text = f", tls: {{certificate: {certificate}, key: {key}}}"
    config.write_text(_CONFIG.format(root=files, auth=auth, tls=tls_text))
    process = subprocess.Popen(
        [program, "serve", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    watchdog = threading.Timer(_STARTS_WITHIN_S, process.kill)
    watchdog.start()
    try:
        said = b""
        for line in process.stderr:
            said += line
            if found := _LISTENING.search(line):
                break
        else:
            raise AssertionError(f"the registry does not start: {said.decode()}")
        watchdog.cancel()
        # It goes on talking; a full pipe would stop it.
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        try:
            yield Registry(found[1].decode(), files, certificate if tls else None)
        finally:
            process.kill()
            drain.join()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stderr.close()


def _certify(certificate: Path) -> Path:
    """Make a certificate for loopback; return its key's path."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = certificate.with_name("key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return key


def _docker(*args: str, stdin: bytes = b"") -> None:
    done = subprocess.run(
        ["docker", *args], input=stdin, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
