"""What a user meets who asks for what cannot be: a line that says it, and status 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import workspace
from tests.workspace import Workspace


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("checkout")
    return replace(workspace.make(root / "own"), store=root / "store")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("publish", "needs an image and a place"),
        ("publish image=hello", "needs an image and a place"),
        ("publish to=localhost:5000/a", "needs an image and a place"),
        ("publish image=hello to=a/b", "to=a/b: registry 'a': expected a host"),
        ("publish image=hello to=localhost/A", "repository 'A': expected lower case"),
        ("publish image=hello to=localhost/a:fp-1", "are never moved"),
        ("publish image=hello to=localhost/a unverified=yes", "expected 1"),
        ("publish image=hello to=localhost/a", "doit build image=hello makes it"),
        ("publish image=debian-base to=localhost/a", "is a base for other images"),
        ("boot from=hello", "from=hello: registry 'hello': expected a host"),
        ("boot from=127.0.0.1:1/a image=hello", "boot one or the other"),
    ],
)
def test_bad_input_is_said_in_a_line(checkout: Workspace, words: str, said: str) -> None:
    done = checkout.doit(*words.split(), env={"DOCKER_HOST": "unix:///nonexistent"})
    assert done.status != 0
    assert said in done.output and "Traceback" not in done.output, done.output


@pytest.mark.parametrize("where", ["cache", "localhost/cache:1"])
def test_a_cache_that_cannot_be_is_said(checkout: Workspace, where: str) -> None:
    env = {"FCBUILD_CACHE": where, "DOCKER_HOST": "unix:///nonexistent"}
    done = checkout.doit("rootfs:hello", env=env)
    assert done.status != 0
    assert f"FCBUILD_CACHE={where}" in done.output and "Traceback" not in done.output
