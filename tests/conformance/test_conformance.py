"""An image behaves in the microVM as it does under `docker run`.

Each run of an image happens once in each place, two at a time, and all cases look at what it
showed. fcbuild/guest/BOOT_CONTRACT.md has the table of what may differ.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fcbuild.tasks import Project
from tests import workspace
from tests.conformance import oracle
from tests.conformance.cases import CASES, RUNS, Case, Run
from tests.conformance.differences import (
    ABSENT,
    Difference,
    Excuse,
    differences,
    excuses,
    matches,
)
from tests.conformance.facts import facts, text
from tests.conformance.microvm import Lab

pytestmark = pytest.mark.boot

IMAGES = Path(__file__).parent / "images"
AT_ONCE = 2  # runs: one waits while another computes
EXCUSES = excuses()

Facts = dict[str, Any]
Pair = tuple[Facts, Facts]  # of the engine and of the microVM


@pytest.fixture(scope="module")
def pairs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Run, Future[Pair]]]:
    """What the runs showed that the selected tests ask for."""
    root = tmp_path_factory.mktemp("checkout")
    workspace.make(root)
    shutil.copytree(IMAGES, root / "images", dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["doit"])  # a project reads its variables there
        patch.setenv("FCBUILD_STORE", str(workspace.STORE))
        project = Project(root, default_image="hello")
    lab = Lab(project)

    def both(run: Run) -> Pair:
        spec = project.plan.specs.images[run.image]
        project.pipeline.container(run.image)
        engine = oracle.run(
            project.plan.container(run.image).tag,
            hostname=spec.hostname,
            ask=run.ask,
            grace_s=spec.stop_grace // 1000,
            init=run.init,
        )
        return facts(engine), facts(lab.run(run.image, ask=run.ask, oracle=engine))

    with ThreadPoolExecutor(AT_ONCE) as workers:
        yield {run: workers.submit(both, run) for run in wanted(request.session.items)}
        workers.shutdown(cancel_futures=True)


def wanted(items: list[pytest.Item]) -> list[Run]:
    """Return the runs that the selected tests look at; a test of the table looks at all."""
    found: dict[Run, None] = {}
    for item in items:
        if item.path == Path(__file__):
            parameters = getattr(item, "callspec").params if hasattr(item, "callspec") else {}
            case, run = parameters.get("case"), parameters.get("run")
            found |= dict.fromkeys([case.run] if case else [run] if run else RUNS)
    return list(found)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, pairs: dict[Run, Future[Pair]]) -> None:
    engine, microvm = pairs[case.run].result()
    for place, showed, expected in (
        ("the engine", engine, case.engine),
        ("the microVM", microvm, case.microvm),
    ):
        for fact, value in expected.items():
            got = text(showed[fact]) if fact in showed else ABSENT
            assert got == text(value), f"{place} shows another {fact}: {got}"
    looked_at = {
        pattern: [fact for fact in {*engine, *microvm} if matches(pattern, fact)]
        for pattern in case.facts
    }
    assert all(looked_at.values()), f"nothing to look at: {looked_at}"
    among = {fact for found in looked_at.values() for fact in found}
    found = [difference for difference in differences(engine, microvm) if difference.fact in among]
    if case.differs:
        assert found, "the microVM does as the engine does: the case need not differ"
        report(unexcused(found))
    else:
        report(found)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_nothing_else_differs(run: Run, pairs: dict[Run, Future[Pair]]) -> None:
    report(unexcused(differences(*pairs[run].result())))


@pytest.mark.parametrize("excuse", EXCUSES, ids=str)
def test_what_is_excused_occurs(excuse: Excuse, pairs: dict[Run, Future[Pair]]) -> None:
    for pair in pairs.values():
        if any(excuse.covers(difference) for difference in differences(*pair.result())):
            return
    pytest.fail(f"no run differs like this any more: {excuse.fact}: {excuse.why}")


def unexcused(found: Iterator[Difference] | list[Difference]) -> list[Difference]:
    return [
        difference
        for difference in found
        if not any(excuse.covers(difference) for excuse in EXCUSES)
    ]


def report(found: list[Difference]) -> None:
    if found:
        pytest.fail("\n".join(["the microVM differs:", *map(str, found)]), pytrace=False)
