"""Integration tests run the user's own commands, in a checkout of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import workspace
from tests.workspace import Workspace


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if trouble := workspace.engine_trouble():
        pytest.skip(trouble)


@pytest.fixture
def checkout(tmp_path: Path) -> Workspace:
    return workspace.make(tmp_path)
