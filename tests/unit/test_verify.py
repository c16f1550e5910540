"""verify: a boot with its checks, the receipt it writes, and what stays behind."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec, verify
from fcbuild.errors import ApiError, BootTimeout, CheckFailed, FcBuildError, GuestExited, VmmError
from fcbuild.spec import HttpCheck, ImageSpec, LogCheck
from fcbuild.store import Artifact
from fcbuild.verify import Receipt, http_get
from fcbuild.vmm.firecracker import Firecracker
from fcbuild.vmm.native import NativeHost
from tests import fakes
from tests.fakes import BOOT, SERVICE, Act, Step, end

DEADLINE_S = 20.0
CHECK = HttpCheck(port=80, path="/x", contains="Hi")
OK = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHi\n"

Serve = Callable[[socket.socket], None]


@pytest.fixture
def get(short_dir: Path) -> Iterator[Callable[[Serve], tuple[bool, str]]]:
    """Make one request to a server that does as told."""
    threads: list[threading.Thread] = []

    def get(serve: Serve) -> tuple[bool, str]:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                theirs.recv(65536)
                serve(theirs)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return http_get(CHECK, lambda: ours)

    yield get
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


Get = Callable[[Serve], tuple[bool, str]]


def sends(data: str) -> Serve:
    return lambda connection: connection.sendall(data.encode("latin-1"))


def test_the_answer_that_is_expected_passes(get: Get) -> None:
    assert get(sends(OK)) == (True, "status 200, 3 bytes")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OK.replace("200", "404"), "expected status 200, got 404"),
        (OK.replace("Hi\n", "Ho\n"), "expected a body with 'Hi', got 'Ho\\n'"),
        ("HTTP/1.1 200 OK\r\n\r\n", "expected a body with 'Hi', got ''"),
        ("garbage\r\n\r\n", "got no answer"),
        ("", "got no answer"),
        ("HTTP/1.1 abc\r\n\r\n", "got no answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "got no answer"),
        ("HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 200 + "\r\n", "got no answer"),
        ("HTTP/1.1 200 OK\r\nX: " + "y" * 70_000 + "\r\n\r\n", "got no answer"),
        (OK.replace("Hi\n", "\xff\xfe\xfd"), "got '\ufffd\ufffd\ufffd'"),
    ],
    ids=lambda text: text[:40],
)
def test_another_answer_fails_and_says_what_came(get: Get, answer: str, said: str) -> None:
    ok, detail = get(sends(answer))
    assert not ok
    assert said in detail


def drip(before: bytes, drop: bytes) -> Serve:
    """Send a drop again and again, until nobody takes it."""

    def serve(connection: socket.socket) -> None:
        try:
            connection.sendall(before)
            while True:
                connection.sendall(drop)
                time.sleep(0.02)
        except OSError:
            pass

    return serve


@pytest.mark.parametrize(
    ("before", "drop"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"Hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"Hi"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "status", "header", "body", "counted body", "continue"],
)
def test_an_answer_that_does_not_end_is_given_up(
    get: Get, monkeypatch: pytest.MonkeyPatch, before: bytes, drop: bytes
) -> None:
    monkeypatch.setattr(verify, "ATTEMPT_S", 0.3)
    ok, detail = get(drip(before, drop))
    assert not ok
    assert "expected status 200, got no" in detail


def test_a_large_answer_is_looked_at_in_part(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_BODY", 10)
    assert get(sends("HTTP/1.1 200 OK\r\n\r\nHi" + "x" * 50)) == (True, "status 200, 10 bytes")


@pytest.mark.parametrize("error", [VmmError("no port"), ConnectionRefusedError("ECONNREFUSED")])
def test_no_connection_is_an_attempt_that_failed(error: Exception) -> None:
    def connect() -> socket.socket:
        raise error

    assert http_get(CHECK, connect) == (False, f"expected status 200, got no answer: {error}")


@pytest.fixture
def image(checkout: Path) -> Callable[..., ImageSpec]:
    def image(toml: str) -> ImageSpec:
        (checkout / "images/tool/image.toml").write_text(toml)
        return spec.load(checkout).images["tool"]

    return image


@pytest.fixture
def boot(
    tmp_path: Path, short_dir: Path, image: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Receipt]:
    """Verify an image with the stand-in; run directories are made in short_dir."""
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(short_dir))

    def boot(toml: str, guest: Sequence[Step], **act: Any) -> Receipt:
        def artifact(kind: str, file: str) -> Artifact:
            (tmp_path / file).write_bytes(b"bytes")
            (tmp_path / file).chmod(0o444)
            return Artifact(kind, "tool", kind * 4, tmp_path, {file: "d" * 64}, {})

        return verify.verify(
            image(toml),
            kernel=artifact("kernel", "vmlinux"),
            rootfs=artifact("rootfs", "rootfs.ext4"),
            host=NativeHost(),
            firecracker=Firecracker(fakes.install(tmp_path, Act(guest=guest, **act)), "1.12.1"),
            receipt_path=tmp_path / "receipts" / "tool.json",
        )

    return boot


Boot = Callable[..., Receipt]


def written(tmp_path: Path) -> Any:
    assert [path.name for path in (tmp_path / "receipts").iterdir()] == ["tool.json"]
    return json.loads((tmp_path / "receipts" / "tool.json").read_text())


def test_a_service_that_holds_its_checks(boot: Boot, tmp_path: Path, short_dir: Path) -> None:
    toml = "[[check]]\nhttp = { port = 80, contains = 'Hi' }\n[[check]]\nlog = 'rea.y'\n"
    guest = [*SERVICE[:3], ["print", "one\nready\n"], *SERVICE[3:-4], *end(stdout=10)]
    boot(toml, guest, http={"80": OK})
    receipt = written(tmp_path)
    assert (receipt["schema"], receipt["image"], receipt["ok"], receipt["error"]) == (
        1,
        "tool",
        True,
        None,
    )
    assert receipt["vmm"] == {"name": "firecracker", "version": "1.12.1", "kvm": "native"}
    assert receipt["kernel"]["digest"] == receipt["rootfs"]["digest"] == "sha256:" + "d" * 64
    assert receipt["exit"] == {"code": 0, "signal": 0, "reason": "stopped"}
    assert [event["event"] for event in receipt["events"]] == [
        *("init", "mounted", "exec", "stopping", "exit", "end")
    ]
    assert [(check["ok"], check["detail"]) for check in receipt["checks"]] == [
        (True, "status 200, 3 bytes"),
        (True, "found: ready"),
    ]
    assert receipt["timings_ms"].keys() == {
        *("spawn", "configure", "start_to_init", "start_to_exec", "start_to_first_check", "total")
    }
    assert all(type(ms) is int for ms in receipt["timings_ms"].values())
    assert not list(short_dir.iterdir())
    assert (tmp_path / "rootfs.ext4").read_bytes() == b"bytes"


def test_a_program_that_ends_as_expected(boot: Boot, tmp_path: Path, short_dir: Path) -> None:
    toml = "[boot]\nexpect_exit = 3\n[[check]]\nlog = '^hello$'\n"
    boot(toml, [*BOOT, ["print", "hello\n"], *end(code=3, stdout=6)])
    receipt = written(tmp_path)
    assert receipt["ok"]
    assert receipt["exit"] == {"code": 3, "signal": 0, "reason": "exited"}
    assert not list(short_dir.iterdir())


def test_a_check_is_repeated_until_it_holds(boot: Boot, tmp_path: Path) -> None:
    toml = "[[check]]\nlog = 'ready'\n"
    guest = [*BOOT, ["print", "no\n"], ["sleep", 0.2], ["print", "ready\n"], *SERVICE[3:]]
    boot(toml, guest)
    assert written(tmp_path)["checks"][0]["ok"]


LOG = "[boot]\ndeadline = '{}'\n[[check]]\nlog = 'never'\n"
HTTP = "[boot]\ndeadline = '{}'\n[[check]]\nhttp = {{ port = 80 }}\n"
LONG, SHORT = "20s", "400ms"


@pytest.mark.parametrize(
    ("toml", "guest", "act", "error", "said"),
    [
        (LOG.format(SHORT), SERVICE, {}, CheckFailed, "in time: log /never/: no such line"),
        (
            LOG.format(LONG),
            [*BOOT, *end(code=0)],
            {},
            CheckFailed,
            "before the program ended with status 0: log /never/",
        ),
        (
            HTTP.format(SHORT),
            SERVICE,
            {"http": {"80": OK.replace("200", "500")}},
            CheckFailed,
            "http :80/ -> 200: expected status 200, got 500",
        ),
        (HTTP.format(SHORT), SERVICE, {}, CheckFailed, "ECONNREFUSED"),
        (
            "[boot]\nexpect_exit = 0\n",
            [*BOOT, *end(code=3)],
            {},
            CheckFailed,
            "expected the program to end with status 0, got 3",
        ),
        ("", [*BOOT[:1], ["leave", 0]], {}, GuestExited, "the VM ended while waiting"),
        (f"[boot]\ndeadline = '{SHORT}'\n", [["hang"]], {}, BootTimeout, "no 'exec' event"),
        ("", [], {"refuse": {"/vsock": "no vsock"}}, ApiError, "no vsock"),
    ],
    ids=["log", "log at end", "http", "refused", "exit", "early", "timeout", "api"],
)
def test_a_failure_is_told_and_its_evidence_is_kept(
    boot: Boot,
    tmp_path: Path,
    short_dir: Path,
    toml: str,
    guest: Sequence[Step],
    act: dict[str, Any],
    error: type[FcBuildError],
    said: str,
) -> None:
    with pytest.raises(error) as caught:
        boot(toml, guest, **act)
    message = str(caught.value)
    assert said in message
    receipt = written(tmp_path)
    assert not receipt["ok"]
    assert said in receipt["error"]
    (run_dir,) = short_dir.iterdir()
    assert str(run_dir) in message
    assert {"console.log", "output.log"} <= {path.name for path in run_dir.iterdir()}


def test_a_service_that_ends_by_itself_must_end_well(boot: Boot, tmp_path: Path) -> None:
    toml = "[[check]]\nlog = 'ready'\n"
    guest = [*BOOT, ["print", "ready\n"], *end(code=2, stdout=6)]
    with pytest.raises(CheckFailed, match="expected the program to end with status 0, got 2"):
        boot(toml, guest)
    assert not written(tmp_path)["ok"]


def test_an_interruption_leaves_no_run_directory_and_the_old_receipt(
    boot: Boot, tmp_path: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot("", [*BOOT, *end(code=0)])
    before = written(tmp_path)

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        boot("", [*BOOT, ["hang"]])
    assert not list(short_dir.iterdir())
    assert written(tmp_path) == before


def test_a_new_receipt_replaces_the_old(boot: Boot, tmp_path: Path) -> None:
    guest = [*BOOT, *end(code=0)]
    boot("", guest)
    with pytest.raises(CheckFailed):
        boot("[boot]\nexpect_exit = 1\n", guest)
    assert not written(tmp_path)["ok"]


def test_the_disk_is_a_private_copy(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        file.truncate(8 << 20)
        file.write(b"head")
    source.chmod(0o444)
    verify.copy_disk(source, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.read_bytes() == source.read_bytes()
    copy.write_bytes(b"changed")
    assert source.stat().st_size == 8 << 20


def test_checks_read_as_people_say_them() -> None:
    assert str(CHECK) == "http :80/x -> 200 and a body with 'Hi'"
    assert str(LogCheck(pattern="a")) == "log /a/"
