"""Logins: where they are found, and that nothing shows them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from fcbuild.errors import RegistryError
from fcbuild.publish import credentials
from fcbuild.publish.credentials import Login

HOST, SECRET = "registry.example.com", "s3cret-word"


def auth(user: str = "me", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(environ: dict[str, str], repository: str = "a/b", **more: Any) -> Login | None:
    return credentials.find(HOST, repository, environ=environ, **more)


def given(**document: Any) -> dict[str, str]:
    return {"DOCKER_AUTH_CONFIG": json.dumps(document), "HOME": "/nonexistent"}


def test_nobody_is_logged_in_where_there_is_nothing(tmp_path: Path) -> None:
    assert found({"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        ("HOME", ".docker/config.json"),
        ("DOCKER_CONFIG", "config.json"),
        ("XDG_RUNTIME_DIR", "containers/auth.json"),
        ("REGISTRY_AUTH_FILE", ""),
    ],
)
def test_a_login_is_found_in_the_usual_files(tmp_path: Path, variable: str, file: str) -> None:
    path = tmp_path / (file or "auth")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"auths": {HOST: auth()}}))
    environ = {"HOME": "/nonexistent", variable: str(tmp_path if file else path)}
    assert found(environ) == Login("me", SECRET)


def test_the_environment_comes_before_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {HOST: auth("file")}}))
    login = found({**given(auths={HOST: auth("env")}), "DOCKER_CONFIG": str(tmp_path)})
    assert login and login.user == "env"


def test_the_most_special_entry_counts() -> None:
    environ = given(auths={HOST: auth("all"), f"{HOST}/a": auth("a"), f"{HOST}/x": auth("x")})
    assert found(environ, "a/b") == Login("a", SECRET)
    assert found(environ, "c") == Login("all", SECRET)


@pytest.mark.parametrize("key", [f"https://{HOST}", f"https://{HOST}/v1/", f"https://{HOST}/v2/"])
def test_entries_of_old_versions_count(key: str) -> None:
    assert found(given(auths={key: auth()})) == Login("me", SECRET)


def test_other_registries_logins_are_not_ours() -> None:
    others = {"example.com": auth(), f"{HOST}.example.org": auth(), f"{HOST}:5000": auth()}
    assert found(given(auths=others)) is None


def test_an_identity_token_is_kept_apart() -> None:
    login = found(given(auths={HOST: {**auth("<token>", ""), "identitytoken": SECRET}}))
    assert login and login.token == SECRET


def test_a_helper_is_asked_by_its_name() -> None:
    asked = []

    def helper(program: str, registry: str) -> bytes:
        asked.append((program, registry))
        return json.dumps({"Username": "h", "Secret": SECRET}).encode()

    environ = given(credHelpers={HOST: "one"}, credsStore="all", auths={HOST: {}})
    assert found(environ, helper=helper) == Login("h", SECRET)
    environ = given(credsStore="all", auths={HOST: {}})
    assert found(environ, helper=helper) == Login("h", SECRET)
    assert asked == [("one", HOST), ("all", HOST)]


def test_a_helpers_token_is_no_password() -> None:
    answer = json.dumps({"Username": "<token>", "Secret": SECRET}).encode()
    assert found(given(credsStore="x"), helper=lambda *_: answer) == Login(token=SECRET)


def program(directory: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "docker-credential-mine"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_a_real_helper_gets_the_registry_and_its_answer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = f'{{"ServerURL":"x","Username":"u","Secret":"{SECRET}"}}'
    program(tmp_path, f'[ "$1" = get ] && [ "$(cat)" = {HOST} ] && echo \'{answer}\'', monkeypatch)
    assert found(given(credsStore="mine")) == Login("u", SECRET)


def test_a_helper_that_does_not_know_the_registry_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "echo credentials not found in native keychain; exit 1", monkeypatch)
    assert found(given(credsStore="mine")) is None


def test_a_helper_that_fails_or_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, f"echo {SECRET}; exit 1", monkeypatch)
    with pytest.raises(RegistryError, match="docker-credential-mine does not give") as caught:
        found(given(credsStore="mine"))
    assert SECRET not in str(caught.value)
    with pytest.raises(RegistryError, match="docker-credential-absent does not give"):
        found(given(credsStore="absent"))


@pytest.mark.parametrize(
    "text",
    [
        f"{{{SECRET}",
        "[]",
        json.dumps({"auths": {HOST: {"auth": f"{SECRET}!"}}}),
        json.dumps({"auths": {HOST: {"auth": base64.b64encode(SECRET.encode()).decode()}}}),
        json.dumps({"credsStore": f"../{SECRET}"}),
    ],
)
def test_a_damaged_document_is_named_and_not_quoted(text: str) -> None:
    with pytest.raises(RegistryError, match="DOCKER_AUTH_CONFIG") as caught:
        found({"DOCKER_AUTH_CONFIG": text, "HOME": "/nonexistent"})
    if "credsStore" not in text:
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


def test_an_answer_that_is_no_login_is_not_quoted() -> None:
    with pytest.raises(RegistryError) as caught:
        found(given(credsStore="x"), helper=lambda *_: SECRET.encode())
    assert SECRET not in str(caught.value)


def test_a_login_is_never_printed() -> None:
    login = Login("me", SECRET, SECRET)
    assert SECRET not in f"{login} {login!r} {[login]}"
    assert base64.b64decode(login.basic.partition(" ")[2]).decode() == f"me:{SECRET}"
