"""From a Dockerfile to a registry, and from there to a boot where nothing can be built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fcbuild.plan import KVM_HOST
from tests import registry, workspace
from tests.registry import Registry
from tests.workspace import Workspace

pytestmark = pytest.mark.boot

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Registry]:
    directory = tmp_path / "registry"
    directory.mkdir()
    with registry.serve(directory) as running:
        yield running


@pytest.fixture
def elsewhere(tmp_path: Path, short_dir: Path) -> Workspace:
    """Another machine: no image, no engine, and a store that has what an emulated host needs."""
    (tmp_path / "elsewhere").mkdir()
    there = replace(workspace.make(tmp_path / "elsewhere"), scratch=short_dir)
    for directory in (there.root / "images").iterdir():
        if directory.is_dir():
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()
    return workspace.alone(there, tmp_path / "store", KVM_HOST)


def test_what_booted_here_boots_where_nothing_can_be_built(
    checkout: Workspace, elsewhere: Workspace, hub: Registry
) -> None:
    to = hub.reference("team/web:1")
    early = checkout.doit("publish", "image=debian-web", f"to={to}")
    assert early.status == 1 and "has no receipt: it was not booted" in early.output
    done = checkout.doit("boot", "publish", "image=debian-web", f"to={to}")
    assert done.status == 0, done.output
    digest = done.output.rpartition(f"published {to}@")[2].split()[0]
    again = checkout.doit("publish", "image=debian-web", f"to={to}")
    assert f"published {to}@{digest}" in again.output and "pushed" not in again.output

    booted = elsewhere.doit("boot", f"from={to}", env=NO_ENGINE)
    assert booted.status == 0, booted.output
    assert "passed: http :80/ -> 200" in booted.output
    (path,) = (elsewhere.root / "artifacts" / "receipts").iterdir()
    there, here = elsewhere.receipt(path.stem), checkout.receipt("debian-web")
    for kind in ("kernel", "rootfs"):
        assert there[kind]["digest"] == here[kind]["digest"]

    # One line more: the receipt is of what it was before.
    page = checkout.root / "images" / "debian-web" / "index.html"
    page.write_text(page.read_text() + "<p>One more line.</p>\n")
    assert checkout.doit("rootfs:debian-web").status == 0
    stale = checkout.doit("publish", "image=debian-web", f"to={to}")
    assert stale.status == 1
    assert "the receipt is of another rootfs than what is built" in stale.output
    marked = checkout.doit("publish", "image=debian-web", f"to={to}", "unverified=1")
    assert marked.status == 0 and "(unverified)" in marked.output, marked.output
    share = float(marked.output.partition("delta ")[2].split("%")[0].split()[-1])
    assert share <= 1.0

    booted = elsewhere.doit("boot", f"from={to}", env=NO_ENGINE)
    assert booted.status == 0, booted.output
    assert "was published without a boot that proves it" in booted.output
    assert "KiB that differ from taken/debian-web" in booted.output
    assert "passed: http :80/ -> 200" in booted.output


def test_two_machines_with_one_cache_build_once(
    checkout: Workspace, elsewhere: Workspace, tmp_path: Path, hub: Registry
) -> None:
    first = workspace.alone(checkout, tmp_path / "first")
    cache = {"FCBUILD_CACHE": hub.reference("cache")}
    made = first.doit("rootfs:hello", env={**cache, "FCBUILD_CACHE_PUSH": "1"})
    assert made.status == 0, made.output
    assert "built    rootfs:hello" in made.output
    second = replace(checkout, store=tmp_path / "second")
    got = second.doit("rootfs:hello", env={**cache, **NO_ENGINE})
    assert got.status == 0, got.output
    assert "fetched  rootfs:hello" in got.output and "built" not in got.output
    assert second.doit("rootfs:hello", env=NO_ENGINE).output.startswith("stored")
