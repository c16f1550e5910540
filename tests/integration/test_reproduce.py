"""Built twice, the bytes are the same; and where a Dockerfile makes them differ, it is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fcbuild import spec
from fcbuild.build import base, program
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.fingerprint import digest
from fcbuild.plan import PACKAGE, Plan
from fcbuild.reproduce import clock
from fcbuild.store import Stage, Store
from tests.workspace import ROOT, STORE, Workspace

pytestmark = pytest.mark.engine

DAY = 86400  # seconds


class Abroad(Docker):
    """An engine whose containers have another zone and another language."""

    def _container(  # type: ignore[override]  # all else goes on as it came
        self, *args: Any, env: Mapping[str, str] | None = None, **options: Any
    ) -> AbstractContextManager[Any, bool | None]:
        abroad = {**(env or {}), "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR"}
        return super()._container(*args, env=abroad, **options)


@pytest.fixture
def here() -> Pipeline:
    return Pipeline(Plan(spec.load(ROOT)), Store(STORE), Docker())


@pytest.fixture
def late(here: Pipeline, tmp_path: Path) -> Path:
    """The library that puts the clock 400 days ahead."""
    return clock.ahead(here.toolchain(), tmp_path / "clock")


@pytest.fixture
def ahead(here: Pipeline, late: Path, tmp_path: Path) -> Docker:
    """An engine whose containers live 400 days from now, and abroad."""
    engine, log_path = Abroad(preload=late), tmp_path / "date"
    with log_path.open("wb") as log:
        engine.run(
            here.toolchain(),
            ["date", "+%s"],
            what="asking for the time",
            mounts={},
            log=log,
            log_path=log_path,
            timeout_s=60,
        )
    assert int(log_path.read_text()) > time.time() + clock.AHEAD_S - DAY, "the clock is ahead"
    return engine


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another umask, user and directory of the sources; yields the directory of another store."""
    copy = tmp_path / "another" / "place"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*"):  # another time, too
        os.utime(path, (1, 1))
    monkeypatch.setattr(program, "PACKAGE", copy)
    if os.getuid() == 0:  # only root may give files to others
        monkeypatch.setattr("fcbuild.build.containers.os.getuid", lambda: 12345)
        monkeypatch.setattr("fcbuild.build.containers.os.getgid", lambda: 54321)
    before = os.umask(0)
    yield tmp_path / "store"
    os.umask(before)


@pytest.mark.parametrize("which", ["init", "agent"])
def test_our_programs_are_the_same_whoever_builds_them_and_when(
    which: str, here: Pipeline, ahead: Docker, elsewhere: Path
) -> None:
    recipe = here.plan.init if which == "init" else here.plan.agent
    first, _ = here.program(recipe)

    def build(stage: Stage) -> None:
        stage.directory.chmod(0o777)
        program.build(recipe, ahead, here.toolchain(), stage)

    second, state = Store(elsewhere).obtain(recipe, build)
    assert state == "built"
    assert second.digests == first.digests


def test_a_base_is_the_same_whenever_it_is_made(
    here: Pipeline, late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = here.plan.container("debian-base")
    locked = here.plan.locked(recipe)
    assert locked
    first = here.base(recipe).file(base.TAR)
    with tempfile.TemporaryDirectory(prefix="fct-") as directory:
        shared = shutil.copy(late, directory)  # bootstrapping has another user
        Path(directory).chmod(0o755)
        monkeypatch.setenv("LD_PRELOAD", shared)
        now = subprocess.run(["date", "+%s"], check=True, capture_output=True).stdout
        assert int(now) > time.time() + clock.AHEAD_S - DAY, "the clock is ahead"
        with tarfile.open(first) as tar:
            lines = tar.extractfile("./etc/apt/sources.list")
            assert lines
            usual = lines.read().decode().splitlines()
        # An archive says until when it is to be trusted, and means it.
        sources = {line.replace("deb ", "deb [check-valid-until=no] ", 1): line for line in usual}
        before = os.umask(0o077)
        try:
            with (tmp_path / "log").open("wb") as log:
                base.bootstrap(
                    here.plan.bootstrap(recipe),
                    tmp_path / base.TAR,
                    epoch=locked.time,
                    pins=locked.packages,
                    log=log,
                    log_path=tmp_path / "log",
                    sources=sources,
                )
        finally:
            os.umask(before)
    if base.installed(tmp_path / base.TAR) != base.installed(first):
        pytest.skip("the archive has moved since the first was made")
    assert digest(tmp_path / base.TAR) == digest(first)


# All that a RUN step leaves that is of its time and does no harm; apt's own is among it.
SETTLED = f"""
FROM fcbuild/debian-base AS lower
ENV OWN={uuid.uuid4()}
RUN date +%N > /var/log/bootstrap.log && touch /below

FROM lower
ARG SOURCE_DATE_EPOCH
RUN apt-get update \\
    && apt-get install -y --no-install-recommends less && rm -r /var/lib/apt/lists/*
RUN head -c 4096 /dev/urandom | tee /var/cache/apt/srcpkgcache.bin > /var/cache/ldconfig/aux-cache
RUN test "$SOURCE_DATE_EPOCH" -gt 1700000000 && useradd --create-home app && useradd other \\
    && day=$(( $(date +%s) / 86400 + 1$(date +%N) % 9 )) \\
    && sed -i -E "s/^app:([^:]*):[0-9]+:/app:\\1:$day:/" /etc/shadow /etc/shadow-
RUN mkdir -p /srv/lib/__pycache__ && echo 'x = 1' > /srv/lib/m.py && perl -e \\
    'print pack "va2V3", 3495, "\\r\\n", 0, (stat "/srv/lib/m.py")[9], -s "/srv/lib/m.py"' \\
    > /srv/lib/__pycache__/m.cpython-313.pyc
RUN touch -d '+300 days' /home/app/later && ln -s later /home/app/link && mkfifo /home/app/fifo
CMD ["true"]
"""

# What nobody but its author can make alike.
UNSETTLED = """
FROM fcbuild/debian-base
RUN date > /built && mkdir "/srv/$(date +%N)" && head -c 64 /dev/urandom > "/odd \x1b[31m name"
RUN date +%N | md5sum | cut -c -32 > /etc/machine-id && chown "$(date +%s):9" /opt
RUN touch -d "@$(( $(date +%s) - 900000000 ))" /media
CMD ["true"]
"""


def test_an_image_is_the_same_when_built_again_and_what_makes_it_differ_is_named(
    checkout: Workspace,
) -> None:
    checkout.image("settled", "", SETTLED)
    checkout.image("unsettled", "", UNSETTLED)
    result = checkout.doit("reproduce", "image=settled,unsettled", "--no-kernel")
    assert "Traceback" not in result.output
    assert result.status == 1, result.output
    told = [line for line in result.output.splitlines() if "sha256:" in line]
    assert [line.split()[:2] for line in told] == [
        ["identical", "base:toolchain"],
        ["identical", "base:debian-base"],
        ["identical", "init:guest"],
        ["identical", "rootfs:settled"],
        ["differs", "rootfs:unsettled"],
    ], result.output
    assert "not the same when built again: rootfs:unsettled" in result.output
    said = result.output[result.output.index("differs ") :]
    for line in (
        "    ~ /built: content\n",
        "    ~ /etc/machine-id: content\n",
        "    ~ /odd \\x1b[31m name: content\n",
        "    ~ /media\n",
        ": a time: use SOURCE_DATE_EPOCH",
        ": a machine's id, which every VM of this image would have",
    ):
        assert line in said, said
    assert "    ~ /opt: owner " in said and "    + /srv/" in said and "    - /srv/" in said
    assert "  /odd \\x1b[31m name: from byte 0 on: " in said
    assert said.count("  ~ ") == 5, "and nothing else"
    nothing_is_left(checkout)


# What a RUN step sees besides, and does not leave in the image.
LATER = {
    "clock.so": "/etc/clock.so",
    "preload": "/etc/ld.so.preload",
    "archive": "/etc/apt/apt.conf.d/99-archive",  # it says until when it is to be trusted
}


@pytest.mark.parametrize("name", ["debian-web", "debian-systemd", "settled"])
def test_a_dockerfiles_steps_may_run_400_days_later(
    name: str, late: Path, checkout: Workspace
) -> None:
    directory = checkout.root / "images" / name
    if name == "settled":
        checkout.image("settled", "", SETTLED)
    path = directory / "Dockerfile"
    text = path.read_text()
    # A step that differs runs anew, whatever the engine holds.
    path.write_text(re.sub("^RUN ", "RUN : today; ", text, flags=re.M))
    first = checkout.doit("build", f"image={name}")
    assert first.status == 0, first.output
    shutil.copy(late, directory)
    (directory / "preload").write_text("/etc/clock.so\n")
    (directory / "archive").write_text('Acquire::Check-Valid-Until "no";\n')
    mounts = [f"--mount=type=bind,source={name},target={at}" for name, at in LATER.items()]
    latest = int(time.time()) + clock.AHEAD_S - DAY
    step = f"RUN {' '.join(mounts)} test $(date +%s) -gt {latest} && "
    path.write_text(re.sub("^RUN ", step, text, flags=re.M))
    link = checkout.root / "artifacts" / "images" / f"{name}.ext4"
    before = link.resolve()
    second = checkout.doit("build", f"image={name}")
    assert second.status == 0, second.output
    assert link.resolve() != before, "another object"
    assert digest(link) == digest(before)


def nothing_is_left(checkout: Workspace) -> None:
    assert not list((checkout.root / "artifacts").glob("reproduce-*"))
    listed = ["docker", "image", "ls", "--format", "{{.Tag}}", "--filter", "reference=fcbuild/*"]
    images = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    assert "-reproduce-" not in images


def test_an_interrupted_second_build_leaves_nothing(checkout: Workspace) -> None:
    assert checkout.doit("build", "image=debian-base").status == 0
    with checkout.interrupt(
        "reproduce", "image=debian-base", after="base:toolchain: boot", number=signal.SIGTERM
    ):
        assert list((checkout.root / "artifacts").glob("reproduce-*"))
    nothing_is_left(checkout)
