"""Registries for the tests of this directory: they need docker-registry, and some skopeo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fcbuild.store import Store
from tests import faults, registry
from tests.faults import Proxy
from tests.publish.yard import Yard, at
from tests.registry import Registry


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without accounts; tests use repositories of their own."""
    with registry.serve(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def proxy(hub: Registry) -> Iterator[Proxy]:
    """A proxy in front of it, for faults."""
    with faults.proxy(hub.host) as running:
        yield running


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    return f"t{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def yard(checkout: Path, tmp_path: Path) -> Yard:
    """A checkout with an image, and a store."""
    (checkout / "images/tool/image.toml").write_text('kernel = "tiny"\n')
    return Yard(checkout, Store(tmp_path / "store"))


@pytest.fixture
def elsewhere(checkout: Path, tmp_path: Path) -> Yard:
    """Another machine, with an empty store."""
    return Yard(checkout, Store(tmp_path / "elsewhere"))


@pytest.fixture
def to(proxy: Proxy, repository: str) -> str:
    """Where to publish to, by way of the proxy."""
    return at(proxy.host, repository)


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login of whoever runs the tests."""
    for name in ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
