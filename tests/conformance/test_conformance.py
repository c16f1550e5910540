"""An image behaves in the microVM as it does under `docker run`.

Each run of an image happens once in each place, two at a time, and all cases look at what it
showed. fcbuild/guest/BOOT_CONTRACT.md has the table of what may differ.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
Pairs = Callable[[Run], Pair]


@pytest.fixture(scope="module")
def pairs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pairs]:
    """What the runs showed that the selected tests ask for."""
    root = tmp_path_factory.mktemp("checkout")
    workspace.make(root)
    shutil.copytree(IMAGES, root / "images", dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["doit"])  # a project reads its variables there
        patch.setenv("FCBUILD_STORE", str(workspace.STORE))
        project = Project(root, default_image="hello")
    lab = Lab(project)

    def show(image: str, ask: str, verdicts: int, runs: Sequence[Run]) -> dict[Run, Pair]:
        """Runs that differ only in what the engine does share one microVM."""
        spec = project.plan.specs.images[image]
        project.pipeline.container(image)
        engine = {
            run: oracle.run(
                project.plan.container(image).tag,
                hostname=spec.hostname,
                ask=ask,
                verdicts=verdicts,
                grace_s=spec.stop_grace // 1000,
                init=run.init,
            )
            for run in runs
        }
        microvm = facts(lab.run(image, ask=ask, verdicts=verdicts, oracle=engine[runs[0]]))
        return {run: (facts(engine[run]), microvm) for run in runs}

    groups: dict[tuple[str, str, int], list[Run]] = {}
    for run in wanted(request.session.items):
        groups.setdefault((run.image, run.ask, run.verdicts), []).append(run)
    with ThreadPoolExecutor(AT_ONCE) as workers:
        shown = {key: workers.submit(show, *key, runs) for key, runs in groups.items()}
        yield lambda run: shown[run.image, run.ask, run.verdicts].result()[run]
        workers.shutdown(cancel_futures=True)


def wanted(items: Sequence[pytest.Item]) -> list[Run]:
    """Return the runs that the selected tests look at; a test of the table looks at all."""
    found: dict[Run, None] = {}
    for item in items:
        if item.path == Path(__file__) and isinstance(item, pytest.Function):
            parameters: dict[str, Any] = item.callspec.params
            if "excuse" in parameters:
                return RUNS
            run = parameters["case"].run if "case" in parameters else parameters["run"]
            found[run] = None
    return list(found)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, pairs: Pairs) -> None:
    engine, microvm = pairs(case.run)
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
def test_nothing_else_differs(run: Run, pairs: Pairs) -> None:
    report(unexcused(differences(*pairs(run))))


@pytest.mark.parametrize("excuse", EXCUSES, ids=str)
def test_what_is_excused_occurs(excuse: Excuse, pairs: Pairs) -> None:
    for run in RUNS:
        if any(excuse.covers(difference) for difference in differences(*pairs(run))):
            return
    pytest.fail(f"no run differs like this any more: {excuse.fact}: {excuse.why}")


def unexcused(found: Iterable[Difference]) -> list[Difference]:
    return [
        difference
        for difference in found
        if not any(excuse.covers(difference) for excuse in EXCUSES)
    ]


def report(found: list[Difference]) -> None:
    if found:
        pytest.fail("\n".join(["the microVM differs:", *map(str, found)]), pytrace=False)
