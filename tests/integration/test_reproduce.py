"""Built twice, the bytes are the same; and where a Dockerfile makes them differ, it is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

from fcbuild import spec
from fcbuild.build import base, program
from fcbuild.build.engine import Docker
from fcbuild.build.pipeline import Pipeline
from fcbuild.fingerprint import digest
from fcbuild.plan import PACKAGE, Plan
from fcbuild.store import Stage, Store
from tests.workspace import ROOT, STORE, Workspace

pytestmark = pytest.mark.engine

DAY = 86400
AHEAD = 400 * DAY  # seconds

# Takes the place of the C library's clocks, in every program of a container.
CLOCK = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += {AHEAD};
    return status;
}}
time_t time(time_t *at) {{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return at ? *at = now.tv_sec : now.tv_sec;
}}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return 0;
}}
"""


class Ahead(Docker):
    """An engine whose containers live 400 days from now."""

    def __init__(self, clock: Path) -> None:
        super().__init__()
        self.clock = clock

    def run(
        self,
        tag: str,
        argv: Sequence[str],
        *,
        what: str,
        mounts: Mapping[Path, str],
        log: IO[bytes],
        log_path: Path,
        timeout_s: float,
        network: bool = False,
        env: Mapping[str, str] | None = None,
        tell: Callable[[str], str] = str,
    ) -> None:
        super().run(
            tag,
            argv,
            what=what,
            mounts={**mounts, self.clock: "/clock.so:ro"},
            log=log,
            log_path=log_path,
            timeout_s=timeout_s,
            network=network,
            env={**(env or {}), "LD_PRELOAD": "/clock.so", "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR"},
            tell=tell,
        )


@pytest.fixture
def here() -> Pipeline:
    return Pipeline(Plan(spec.load(ROOT)), Store(STORE), Docker())


@pytest.fixture
def ahead(here: Pipeline, tmp_path: Path) -> Ahead:
    directory = tmp_path / "clock"
    directory.mkdir()
    (directory / "clock.c").write_text(CLOCK)
    engine, toolchain = Docker(), here.toolchain()

    def run(engine: Docker, *argv: str) -> None:
        with (directory / "log").open("wb") as log:
            engine.run(
                toolchain,
                argv,
                what="the clock",
                mounts={directory: "/clock:rw"},
                log=log,
                log_path=directory / "log",
                timeout_s=60,
            )

    run(engine, "gcc", "-shared", "-fPIC", "-o", "/clock/clock.so", "/clock/clock.c")
    ahead = Ahead(directory / "clock.so")
    run(ahead, "date", "+%s")
    assert int((directory / "log").read_text()) > time.time() + AHEAD - DAY, "the clock is ahead"
    return ahead


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
    which: str, here: Pipeline, ahead: Ahead, elsewhere: Path
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
    here: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = here.plan.container("debian-base")
    locked = here.plan.locked(recipe)
    assert locked
    first = here.base(recipe).file(base.TAR)
    with tempfile.TemporaryDirectory(prefix="fct-") as directory:
        clock = Path(directory, "clock.so")
        (tmp_path / "clock.c").write_text(CLOCK)
        compiler = ["gcc", "-shared", "-fPIC", "-o", str(clock), f"{tmp_path}/clock.c", "-ldl"]
        subprocess.run(compiler, check=True)
        monkeypatch.setenv("LD_PRELOAD", str(clock))
        now = subprocess.run(["date", "+%s"], check=True, capture_output=True).stdout
        assert int(now) > time.time() + AHEAD - DAY, "the clock is ahead"
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
