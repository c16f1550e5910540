"""Firecracker's API: our calls against a stand-in, and our bodies against its own description."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fcbuild.errors import ApiError, VmmError
from fcbuild.vmm import config
from fcbuild.vmm.api import Api
from tests import fakes
from tests.fakes import Act, Firecracker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.touch()
    return path


def serve(directory: Path, act: Act) -> Path:
    Firecracker(act, directory).serve(str(directory / "api.sock"))
    return directory / "api.sock"


def microvm(kernel: Path, short_dir: Path) -> config.VmConfig:
    vm = config.MicroVm(
        kernel=kernel,
        rootfs=kernel,
        vcpus=1,
        memory_mib=64,
        shared=True,
        config=kernel,
        overlay=kernel,
        tap="tap0",
        mac="02:00:00:00:00:02",
        metadata={"anything": {"goes": [1, "x"]}},
    )
    return config.for_image(vm, vsock=short_dir / "v.sock")


def test_a_microvm_is_configured_and_started(short_dir: Path, kernel: Path) -> None:
    """All of it is more calls than Firecracker takes connections."""
    api = Api(serve(short_dir, Act()))
    assert api.version() == fakes.VERSION
    calls = list(microvm(kernel, short_dir).calls())
    for path, body in calls:
        api.put(path, body)
    api.action("InstanceStart")
    assert len(calls) + 2 > fakes.MAX_CONNECTIONS


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        ("/actions", {"action_type": "InstanceStart"}, "Cannot start microvm without kernel"),
        ("/nowhere", {}, "Invalid request method and/or path"),
        ("/vsock", {"guest_cid": 3}, "missing field `uds_path`"),
        ("/entropy", {"x": 1}, "unknown field `x`"),
        ("/mmds", {"x": 1}, "MMDS is not configured"),
        ("/mmds/config", {"network_interfaces": ["eth0"]}, "one that does not exist"),
    ],
)
def test_a_refusal_carries_the_fault(
    short_dir: Path, path: str, body: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ApiError) as caught:
        Api(serve(short_dir, Act())).put(path, body)
    error = caught.value
    assert (error.method, error.path, error.status) == ("PUT", path, 400)
    assert fault in error.fault
    assert str(error).startswith(f"Firecracker refused PUT {path} with 400: ")


def test_a_call_without_an_answer_ends(short_dir: Path) -> None:
    socket_path = serve(short_dir, Act(hang="/entropy"))
    with pytest.raises(VmmError) as caught:
        Api(socket_path, timeout_s=0.3).put("/entropy", {})
    assert "did not answer PUT /entropy within" in str(caught.value)


# requests-unixsocket leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_socket_is_a_vmm_error(short_dir: Path) -> None:
    with pytest.raises(VmmError, match="GET /version"):
        Api(short_dir / "api.sock").version()
    gc.collect()


@pytest.fixture
def answers(short_dir: Path) -> Iterator[list[bytes]]:
    """A server that sends one prepared answer to a connection."""
    prepared: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(short_dir / "api.sock"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(prepared[0])

        thread = threading.Thread(target=answer)
        thread.start()
        yield prepared
        thread.join(20)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops", "oops"),
        (b"HTTP/1.1 400 X\r\nContent-Length: 2\r\n\r\n[]", "[]"),
        (b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n", "(no message)"),
    ],
)
def test_a_refusal_without_a_fault_message(
    short_dir: Path, answers: list[bytes], answer: bytes, fault: str
) -> None:
    answers.append(answer)
    with pytest.raises(ApiError) as caught:
        Api(short_dir / "api.sock").put("/entropy", {})
    assert caught.value.fault == fault


@pytest.mark.parametrize(
    "answer",
    [
        b"junk\r\n\r\n",
        b"",
        b"HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\n{x}",
        b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["junk", "closed", "no JSON", "no version", "no body"],
)
def test_a_garbage_answer_is_a_vmm_error(
    short_dir: Path, answers: list[bytes], answer: bytes
) -> None:
    answers.append(answer)
    with pytest.raises(VmmError):
        Api(short_dir / "api.sock").version()


def test_a_proxy_of_the_environment_is_not_asked(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"]:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Api(serve(short_dir, Act())).version() == fakes.VERSION


def description() -> dict[str, Any]:
    """Firecracker's own description of its API, which is no part of the repository."""
    named = os.environ.get("FCBUILD_FIRECRACKER_API")
    found = [Path(named)] if named else sorted(ROOT.glob("../shared/data/firecracker-api-*.yaml"))
    if not found or not found[-1].is_file():
        pytest.skip("Firecracker's API description is not at hand (FCBUILD_FIRECRACKER_API)")
    described: dict[str, Any] = yaml.safe_load(found[-1].read_text())
    return described


def schema_of(described: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the schema of a PUT's body, by the path's template."""
    for template, methods in described["paths"].items():
        parts = template.split("/"), path.split("/")
        if len(parts[0]) == len(parts[1]) and all(
            known == got or known.startswith("{") for known, got in zip(*parts, strict=True)
        ):
            (body,) = (p for p in methods["put"]["parameters"] if p["in"] == "body")
            name = body["schema"]["$ref"].rpartition("/")[2]
            # additionalProperties: a field that Firecracker does not know is our mistake.
            return {
                **described["definitions"][name],
                "additionalProperties": name == "MmdsContentsObject",  # free by nature
                "definitions": described["definitions"],
            }
    raise AssertionError(f"no {path} in the description")


def test_bodies_are_as_firecracker_describes_them(kernel: Path, short_dir: Path) -> None:
    described = description()
    calls = list(microvm(kernel, short_dir).calls())
    actions = ("InstanceStart", "SendCtrlAltDel")
    calls += [("/actions", {"action_type": action}) for action in actions]
    for path, body in calls:
        schema = schema_of(described, path)
        jsonschema.validate(json.loads(json.dumps(body)), schema)
        if path == "/mmds":
            continue
        # The check can fail.
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**body, "unheard_of": 1}, schema)


def test_the_stand_in_knows_the_fields_that_firecracker_describes() -> None:
    described = description()
    for path, fields in Firecracker.FIELDS.items():
        schema = schema_of(described, path)
        required, _, optional = fields.partition("/")
        assert set(required.split()) == set(schema.get("required", [])), path
        assert set(optional.split()) <= set(schema["properties"]), path


def test_limits_of_specs_are_those_of_the_description() -> None:
    from fcbuild.spec import MAX_VCPUS

    vcpus = schema_of(description(), "/machine-config")["properties"]["vcpu_count"]
    assert vcpus["maximum"] == MAX_VCPUS
