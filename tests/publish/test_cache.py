"""The cache that builders share: it saves them work, and never stands in their way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcbuild.build import program
from fcbuild.build.pipeline import Pipeline
from fcbuild.errors import SpecError
from fcbuild.publish import cache, oci
from fcbuild.publish.cache import Cache
from fcbuild.publish.oci import Manifest
from fcbuild.publish.reference import Reference, parse
from fcbuild.publish.registry import Registry
from fcbuild.recipes import Recipe
from fcbuild.store import Artifact, Stage
from tests import registry as registries
from tests.faults import Fault, Proxy
from tests.publish.test_registry import logins
from tests.publish.yard import QUICK, Yard


class Idle:
    """A container engine that has every image, and of which nothing else may be asked."""

    def has(self, tag: str) -> bool:
        return True


@pytest.fixture
def place(proxy: Proxy, repository: str) -> Reference:
    return Reference(proxy.host, repository)


def opened(place: Reference, yard: Yard, *, write: bool = False, **more: Any) -> Cache:
    settings = {"downloads": yard.store.root / "downloads", "patience": QUICK, **more}
    return Cache(place, write=write, **settings)


def keep(yard: Yard, place: Reference) -> tuple[Artifact, Artifact]:
    """Build on one machine, which puts it into the cache."""
    kernel, rootfs = yard.built()
    into = opened(place, yard, write=True)
    into.keep(yard.plan.kernel("tiny"), kernel, yard.root)
    into.keep(yard.plan.rootfs("tool"), rootfs, yard.root)
    return kernel, rootfs


def pipeline(yard: Yard, of: Cache | None) -> Pipeline:
    return Pipeline(yard.plan, yard.store, Idle(), cache=of)  # type: ignore[arg-type]


def test_a_second_machine_builds_nothing(yard: Yard, elsewhere: Yard, place: Reference) -> None:
    kernel, rootfs = keep(yard, place)
    second = pipeline(elsewhere, opened(place, elsewhere))
    for made, (found, state) in ((kernel, second.kernel("tiny")), (rootfs, second.rootfs("tool"))):
        assert state == "fetched"
        assert found.fingerprint == made.fingerprint
        assert (found.digests, found.facts) == (made.digests, made.facts)
        assert found.file("inputs.json").read_bytes() == made.file("inputs.json").read_bytes()
    assert second.kernel("tiny")[1] == "stored"
    assert [*(elsewhere.store.root / "downloads").iterdir()] == []


def test_what_is_built_is_put_there_and_programs_stay_executable(
    yard: Yard, elsewhere: Yard, place: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_it(recipe: Recipe, engine: object, toolchain: str, stage: Stage) -> None:
        stage.file("init").write_bytes(b"\x7fELF init")
        stage.file("init").chmod(0o755)

    monkeypatch.setattr(program, "build", compile_it)
    assert pipeline(yard, opened(place, yard, write=True)).program(yard.plan.init)[1] == "built"
    monkeypatch.setattr(program, "build", None)
    found, state = pipeline(elsewhere, opened(place, elsewhere)).program(yard.plan.init)
    assert state == "fetched"
    assert found.file("init").read_bytes() == b"\x7fELF init"
    assert found.file("init").stat().st_mode & 0o777 == 0o555


def test_who_only_reads_puts_nothing_there(
    yard: Yard, place: Reference, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_it(recipe: Recipe, engine: object, toolchain: str, stage: Stage) -> None:
        stage.file("init").write_bytes(b"init")

    monkeypatch.setattr(program, "build", compile_it)
    assert pipeline(yard, opened(place, yard)).program(yard.plan.init)[1] == "built"
    assert proxy.requests("PUT|POST", ".*") == 0


def test_it_can_be_asked_without_building(yard: Yard, elsewhere: Yard, place: Reference) -> None:
    second = pipeline(elsewhere, opened(place, elsewhere))
    recipe = yard.plan.rootfs("tool")
    assert second.fetch(recipe) is None
    assert not list((elsewhere.store.root / "stage").iterdir())
    keep(yard, place)
    assert pipeline(elsewhere, opened(place, elsewhere)).fetch(recipe)
    assert pipeline(elsewhere, None).fetch(recipe) is None


def test_what_is_there_is_not_pushed_again(yard: Yard, place: Reference, proxy: Proxy) -> None:
    keep(yard, place)
    sent = proxy.requests("PUT|POST", ".*")
    keep(yard, place)
    assert proxy.requests("PUT|POST", ".*") == sent


def restored(yard: Yard, of: Cache, tmp_path: Path) -> tuple[bool, list[str], dict[str, Any]]:
    """Ask a cache for a root filesystem; return what it says, the files that came, the facts."""
    directory = tmp_path / "stage-of-a-test"
    directory.mkdir()
    with (tmp_path / "log").open("wb") as log:
        stage = Stage(directory, tmp_path, log, tmp_path / "log")
        found = of.restore(yard.plan.rootfs("tool"), stage)
    return found, sorted(path.name for path in directory.iterdir()), stage.facts


def change(place: Reference, recipe: Recipe, how: str) -> None:
    """Alter what the cache holds, in a way that all digests are right."""
    tag = f"{recipe.kind}-{recipe.fingerprint}"
    with Registry(place, push=True, patience=QUICK) as registry:
        content = registry.manifest(tag)[1]
        manifest = oci.read(content, oci.MANIFEST, what="it")
        assert isinstance(manifest, Manifest)
        document = json.loads(registry.read(manifest.config))
        (layer,) = manifest.layers
        annotations = dict(layer.annotations)
        if how == "another object":
            document["fingerprint"] = "0" * 64
        elif how == "another kind":
            document["kind"] = "kernel"
        elif how == "newer":
            document["schema"] = 2
        elif how == "no document":
            document = []
        elif how == "other files":
            document["files"]["more"] = document["files"]["rootfs.ext4"]
        elif how == "other digest":
            document["files"]["rootfs.ext4"]["sha256"] = "0" * 64
        elif how == "both digests":
            document["files"]["rootfs.ext4"]["sha256"] = "0" * 64
            annotations[oci.PLAIN_DIGEST] = f"sha256:{'0' * 64}"
        elif how == "a path":
            annotations[oci.TITLE] = "../rootfs.ext4"
        text = json.dumps(document).encode()
        config = oci.describe(cache.CONFIG, text)
        registry.push(config, text)
        changed = manifest._replace(
            config=config, layers=(layer._replace(annotations=annotations),)
        )
        if how == "another artifact":
            changed = changed._replace(artifact_type=oci.MICROVM)
        registry.put(changed.document(), oci.MANIFEST, tag)


@pytest.mark.parametrize(
    "how",
    [
        *("another object", "another kind", "another artifact", "newer", "no document"),
        *("other files", "other digest", "both digests", "a path"),
    ],
)
def test_what_is_not_right_is_said_and_not_used(
    yard: Yard,
    elsewhere: Yard,
    place: Reference,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    how: str,
) -> None:
    keep(yard, place)
    change(place, yard.plan.rootfs("tool"), how)
    assert restored(yard, opened(place, elsewhere), tmp_path) == (False, [], {})
    assert "warning: rootfs:tool: what the cache has is not used" in capfd.readouterr().err


def test_altered_and_truncated_bytes_are_said_and_not_used(
    yard: Yard,
    elsewhere: Yard,
    place: Reference,
    proxy: Proxy,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    keep(yard, place)
    proxy.faults.append(Fault(path="/v2/.*/blobs/.*", flip=100_000, times=99))
    assert restored(yard, opened(place, elsewhere), tmp_path) == (False, [], {})
    assert "is not used" in capfd.readouterr().err


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path=".*", status=500, times=99),
        Fault(path=".*", status=429, headers={"Retry-After": "600"}, times=99),
        Fault(path=".*", status=401, times=99),
        Fault(path=".*", hang_s=3, times=99),
        Fault(path="/v2/.*/blobs/.*", cut=0, times=99),
        Fault(path="/v2/.*/blobs/.*", pause_s=1, times=99),
    ],
    ids=["broken", "too many", "denied", "silent", "cut", "slow"],
)
def test_a_cache_in_trouble_is_given_up_once(
    yard: Yard,
    elsewhere: Yard,
    place: Reference,
    proxy: Proxy,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    fault: Fault,
) -> None:
    keep(yard, place)
    proxy.faults.append(fault)
    short = QUICK._replace(silence_s=0.5, attempts=2, rate=1 << 30)
    of = opened(place, elsewhere, write=True, patience=short)
    assert restored(yard, of, tmp_path) == (False, [], {})
    said = capfd.readouterr().err
    assert said.count("warning: doing without the cache") == 1
    seen = len(proxy.seen)
    of.keep(yard.plan.kernel("tiny"), yard.built()[0], yard.root)
    assert len(proxy.seen) == seen and "warning" not in capfd.readouterr().err


def test_nobody_there_is_no_reason_to_fail(
    yard: Yard, elsewhere: Yard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    of = opened(parse("127.0.0.1:1/cache"), elsewhere)
    assert restored(yard, of, tmp_path) == (False, [], {})
    assert "doing without the cache: 127.0.0.1:1 does not answer" in capfd.readouterr().err


def test_a_push_that_is_refused_fails_no_build(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with registries.serve(tmp_path, accounts=True) as closed:
        monkeypatch.setenv(
            "DOCKER_AUTH_CONFIG", logins(closed.host, password="wrong")["DOCKER_AUTH_CONFIG"]
        )
        keep(yard, Reference(closed.host, "cache"))
    said = capfd.readouterr().err
    assert said.count("doing without the cache") == 1 and "wrong" not in said


def test_the_environment_says_where_it_is(tmp_path: Path) -> None:
    assert cache.asked({}, tmp_path) is None
    read = cache.asked({"FCBUILD_CACHE": "localhost:5000/cache"}, tmp_path)
    assert read and not read.write
    both = {"FCBUILD_CACHE": "localhost:5000/cache", "FCBUILD_CACHE_PUSH": "1"}
    assert (found := cache.asked(both, tmp_path)) and found.write
    for wrong in (
        {"FCBUILD_CACHE": "cache"},
        {"FCBUILD_CACHE": "localhost:5000/cache:latest"},
        {"FCBUILD_CACHE": "localhost:5000/cache", "FCBUILD_CACHE_PUSH": "yes"},
    ):
        with pytest.raises(SpecError, match="FCBUILD_CACHE"):
            cache.asked(wrong, tmp_path)
