"""A locked base: made of the locked packages, from the archive, a snapshot, or with a word."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fcbuild.build import base
from fcbuild.context import EPOCH
from fcbuild.errors import BuildError, CommandFailed
from fcbuild.lock import LockedBase
from fcbuild.recipes import Recipe
from fcbuild.spec import Bootstrap
from fcbuild.store import Artifact, Stage

SPEC = Bootstrap(suite="trixie", packages=("curl", "less"))
LOCKED = LockedBase(
    suite="trixie",
    asked=("curl", "less"),
    packages={"curl": "8.1-1", "libc6": "2.41-1"},
    time=1769860800,  # 2026-01-31T12:00:00Z
)
RECIPE = Recipe("base", "b", {})
SOURCES = (
    "deb http://deb.debian.org/debian trixie main\n"
    "deb http://security.debian.org/debian-security trixie-security main\n"
)
MOVED = {"curl": "8.1-2", "libc6": "2.41-1", "less": "668-1"}


def tar(path: Path, packages: Mapping[str, str], sources: str = SOURCES) -> None:
    status = "\n".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n"
        for name, version in packages.items()
    )
    with tarfile.open(path, "w") as out:
        for name, text in (("etc/apt/sources.list", sources), ("var/lib/dpkg/status", status)):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(text)
            out.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    for name in ("object", "scratch"):
        (tmp_path / name).mkdir()
    log = io.BytesIO()
    return Stage(tmp_path / "object", tmp_path / "scratch", log, tmp_path / "log")


class Archive:
    """Stands for mmdebstrap: each run gives what the list has next."""

    def __init__(self, *runs: Mapping[str, str] | None, sources: str = SOURCES) -> None:
        self.runs = list(runs)
        self.sources = sources
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, argv: list[Any], *, env: dict[str, str], **rest: Any) -> None:
        words = list(map(str, argv))
        self.calls.append((words, env))
        packages = self.runs.pop(0)
        if packages is None:
            raise CommandFailed("bootstrapping", argv=words, status=1)
        (place,) = (Path(word) for word in words if word.endswith(".tar"))
        tar(place, packages, self.sources)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(*runs: Mapping[str, str] | None, sources: str = SOURCES) -> Archive:
        made = Archive(*runs, sources=sources)
        monkeypatch.setattr(base, "run", made)
        monkeypatch.setattr(base, "need", lambda tool, package: Path(tool))
        monkeypatch.setattr("os.getuid", lambda: 0)
        return made

    return install


def mirrors(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("deb ")]


def test_the_archive_is_asked_first_and_is_enough(archive: Any, stage: Stage) -> None:
    made = archive(LOCKED.packages)
    base.build(RECIPE, SPEC, LOCKED, stage, strict=True)
    ((words, env),) = made.calls
    assert words[0] == "mmdebstrap" and "--include=curl,less" in words and "trixie" in words
    assert mirrors(words) == []
    assert env["SOURCE_DATE_EPOCH"] == "1769860800"
    assert stage.facts == {}


def test_the_locked_versions_go_before_newer_ones_and_leave_no_trace(
    archive: Any, stage: Stage
) -> None:
    made = archive(LOCKED.packages)
    base.build(RECIPE, SPEC, LOCKED, stage, strict=True)
    ((words, _),) = made.calls
    (before,) = (word for word in words if word.startswith("--setup-hook="))
    for name, version in LOCKED.packages.items():
        assert f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" in before
    place = '"$1/etc/apt/preferences.d/fcbuild"'
    assert before.endswith(f"> {place}")
    (after,) = (word for word in words if word.startswith("--customize-hook=rm "))
    assert place in after


def test_a_base_without_a_lock_is_what_the_archive_has(archive: Any, stage: Stage) -> None:
    made = archive(MOVED)
    base.build(RECIPE, SPEC, None, stage, strict=True)
    words, env = made.calls[0]
    assert env["SOURCE_DATE_EPOCH"] == str(EPOCH)
    assert not [word for word in words if word.startswith("--setup-hook=")]
    assert stage.facts == {}


def test_what_the_archive_no_longer_has_comes_from_its_snapshot(archive: Any, stage: Stage) -> None:
    made = archive(MOVED, LOCKED.packages)
    base.build(RECIPE, SPEC, LOCKED, stage, strict=True)
    words, env = made.calls[1]
    options = "[check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    snapshot = "http://snapshot.debian.org/archive"
    assert mirrors(words) == [
        f"deb {options} {snapshot}/debian/20260131T120000Z trixie main",
        f"deb {options} {snapshot}/debian-security/20260131T120000Z trixie-security main",
    ]
    assert env["SOURCE_DATE_EPOCH"] == "1769860800"
    # The image is not to know where its packages came from.
    (hook,) = (word for word in words if "sources.list" in word)
    assert all(f"'{line}'" in hook for line in SOURCES.splitlines())
    assert base.installed(stage.file(base.TAR)) == LOCKED.packages
    assert stage.facts == {}


def test_what_was_new_when_it_was_locked_is_in_the_next_picture(archive: Any, stage: Stage) -> None:
    made = archive(MOVED, MOVED, LOCKED.packages)
    base.build(RECIPE, SPEC, LOCKED, stage, strict=True)
    assert "/debian/20260131T180000Z " in mirrors(made.calls[2][0])[0]
    assert base.installed(stage.file(base.TAR)) == LOCKED.packages


@pytest.mark.parametrize(
    ("runs", "sources"),
    [
        ((MOVED, None), SOURCES),  # the snapshot archive cannot be reached
        ((MOVED, MOVED, MOVED), SOURCES),
        ((MOVED,), "deb http://archive.ubuntu.com/ubuntu noble main\n"),  # there is none
        ((MOVED,), SOURCES + "# something else\n"),
    ],
)
def test_where_no_snapshot_helps_it_is_told_and_in_ci_refused(
    archive: Any,
    stage: Stage,
    capsys: pytest.CaptureFixture[str],
    runs: tuple[Mapping[str, str] | None, ...],
    sources: str,
) -> None:
    made = archive(*runs, sources=sources)
    base.build(RECIPE, SPEC, LOCKED, stage, strict=False)
    assert stage.facts == {"moved": ["curl 8.1-1 -> 8.1-2", "less 668-1 added"]}
    assert base.installed(stage.file(base.TAR)) == MOVED
    assert len(made.calls) == len(runs)
    said = capsys.readouterr().err
    assert "warning: base:b: the archive has no longer the locked packages" in said
    assert "\n  curl 8.1-1 -> 8.1-2\n  less 668-1 added\n" in said

    archive(*runs, sources=sources)
    with pytest.raises(BuildError) as caught:
        base.build(RECIPE, SPEC, LOCKED, stage, strict=True)
    assert "curl 8.1-1 -> 8.1-2" in caught.value.message
    assert str(caught.value.hint).startswith("doit lock")


def test_of_many_packages_a_few_are_named(
    archive: Any, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    archive({f"p{number}": "1" for number in range(9)}, None)
    base.build(RECIPE, SPEC, LOCKED, stage, strict=False)
    assert "\n  p4 1 added\n  and 6 more\n" in capsys.readouterr().err


def test_an_archive_that_does_not_answer_is_an_error(archive: Any, stage: Stage) -> None:
    archive(None)
    with pytest.raises(CommandFailed):
        base.build(RECIPE, SPEC, LOCKED, stage, strict=False)


def test_a_stored_base_of_other_packages_is_not_for_ci(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"moved": ["curl 1 -> 2"]}
    artifact = Artifact("base", "b", "f" * 64, tmp_path, {}, facts)
    with pytest.raises(BuildError, match="base:b in the store is not made of the locked packages"):
        base.insist(artifact)
    facts.clear()
    base.insist(artifact)
    base.insist(None)


def test_nothing_of_the_machine_is_left_in_a_base(tmp_path: Path) -> None:
    """The hooks, run by a shell as mmdebstrap does it."""
    import subprocess

    (tmp_path / "etc" / "apt").mkdir(parents=True)
    for name in ("hostname", "resolv.conf", "passwd"):
        (tmp_path / "etc" / name).write_text("x\n")
    listed = tmp_path / "etc" / "apt" / "sources.list"
    listed.write_text('deb [signed-by="/usr/share/keyrings/x.gpg"] http://a/debian trixie main\n')

    def hook(*sources: str) -> str:
        for command in base._hooks(sources):
            subprocess.run(["sh", "-c", command, "exec", str(tmp_path)], check=True)
        return listed.read_text()

    assert hook() == "deb http://a/debian trixie main\n"
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["apt", "passwd"]
    assert hook("deb http://a x y", "deb http://b x y") == "deb http://a x y\ndeb http://b x y\n"
