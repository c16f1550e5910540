"""Root filesystems that several tasks build: as many are packed at a time as there is room for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fcbuild.build import packing, rootfs
from fcbuild.build.engine import Engine
from fcbuild.build.packing import Packed
from fcbuild.errors import BuildError
from fcbuild.recipes import Recipe
from fcbuild.spec import ImageSpec
from fcbuild.store import Stage


def build(name: str) -> None:
    engine = SimpleNamespace(config=lambda tag: None, standby=lambda *a, **k: nullcontext(print))
    stage = SimpleNamespace(gates=[], held=ExitStack(), facts={}, directory=Path("/nowhere"))
    stage.log = stage.log_path = None
    rootfs.build(
        cast(Recipe, SimpleNamespace(name=name)),
        cast(ImageSpec, SimpleNamespace(platform="linux/amd64")),
        cast(Engine, engine),
        image=f"fcbuild/{name}:1",
        toolchain="fcbuild/toolchain:1",
        init=Path("/nowhere/init"),
        epoch=0,
        stage=cast(Stage, stage),
    )


def test_others_are_packed_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = 0, 0
    counting, both = threading.Lock(), threading.Barrier(2, timeout=60)

    def packed(*_: object) -> Packed:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        both.wait()  # two are packed at the same time, or this fails
        with counting:
            inside -= 1
        return Packed({}, [])

    monkeypatch.setattr(packing, "packed", packed)
    monkeypatch.setattr(rootfs, "_turn", threading.BoundedSemaphore(2))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(build, "abcdef"))
    assert most == 2


def test_one_that_fails_leaves_its_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Packed:
        raise BuildError("no program")

    monkeypatch.setattr(rootfs, "_turn", threading.BoundedSemaphore(1))
    for _ in range(2):
        monkeypatch.setattr(packing, "packed", fails)
        with pytest.raises(BuildError, match="no program"):
            build("a")
    monkeypatch.setattr(packing, "packed", lambda *_: Packed({}, []))
    build("a")
