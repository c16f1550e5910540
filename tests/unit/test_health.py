"""HEALTHCHECK: from the engine's object, or the label, to the records of the boot contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fcbuild.build import health
from fcbuild.build.health import LABEL, Health
from fcbuild.errors import BuildError

S = 10**9  # the engine counts nanoseconds


def read(config: Any = None, label: Any = None, shell: tuple[str, ...] = ()) -> Health | None:
    labels = (
        {} if label is None else {LABEL: label if isinstance(label, str) else json.dumps(label)}
    )
    return health.read(config, labels, shell, "Dockerfile:3")


@pytest.mark.parametrize("config", [None, {}, {"Test": None}, {"Test": []}, {"Test": ["NONE"]}])
def test_an_image_without_a_check_has_none(config: Any) -> None:
    assert read(config) is None


def test_the_engines_defaults_stand_in_for_what_is_not_said() -> None:
    for config in (
        {"Test": ["CMD", "/check"]},
        {
            "Test": ["CMD", "/check"],
            "Interval": 0,
            "Timeout": 0,
            "StartPeriod": 0,
            "StartInterval": 0,
            "Retries": 0,
        },
    ):
        assert read(config) == Health(
            argv=("/check",),
            interval=30_000,
            timeout=30_000,
            start_period=0,
            start_interval=5_000,
            retries=3,
        )


def test_every_value_is_read() -> None:
    found = read(
        {
            "Test": ["CMD", "curl", "", "two words"],
            "Interval": 5 * S,
            "Timeout": 1,
            "StartPeriod": 1_500_001,
            "StartInterval": 3_600 * S,
            "Retries": 1000,
        }
    )
    assert found is not None
    assert list(found.records()) == [
        ("health", "curl"),
        ("health", ""),
        ("health", "two words"),
        ("health-interval-ms", "5000"),
        ("health-timeout-ms", "1"),
        ("health-start-period-ms", "2"),
        ("health-start-interval-ms", "3600000"),
        ("health-retries", "1000"),
    ]


def test_the_shell_form_uses_the_images_shell() -> None:
    config = {"Test": ["CMD-SHELL", "a && b"]}
    assert (found := read(config)) and found.argv == ("/bin/sh", "-c", "a && b")
    assert (found := read(config, shell=("/bin/bash", "-ec"))) and found.argv == (
        "/bin/bash",
        "-ec",
        "a && b",
    )


def test_the_label_goes_before_the_healthcheck() -> None:
    assert (found := read({"Test": ["CMD", "a"]}, {"Test": ["CMD", "b"]})) and found.argv == ("b",)
    assert read({"Test": ["CMD", "a"]}, {"Test": ["NONE"]}) is None


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1m30s", 90_000),
        ("1.5s", 1500),
        ("250ms", 250),
        ("1h0m0.25s", 3_600_250),
        ("999µs", 1),
        ("1us1ns", 1),
        ("0", 30_000),
        ("0s", 30_000),
    ],
)
def test_a_label_may_write_times_as_people_do(text: str, ms: int) -> None:
    found = read(label={"Test": ["CMD", "a"], "Interval": text})
    assert found is not None
    assert found.interval == ms


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ({"test": ["CMD", "a"]}, "'test' is unknown (did you mean Test?)"),
        ({"Test": "a"}, "Test is 'a', not a list of strings"),
        ({"Test": ["CMD", 1]}, "not a list of strings"),
        ({"Test": ["CMD", "a\0"]}, "not a list of strings"),
        ({"Test": ["CMD"]}, "Test is ['CMD']"),
        ({"Test": ["CMD", ""]}, "Test is ['CMD', '']"),
        ({"Test": ["CMD-SHELL"]}, "Test is ['CMD-SHELL']"),
        ({"Test": ["CMD-SHELL", "a", "b"]}, "CMD-SHELL"),
        ({"Test": ["a"]}, "Test is ['a']"),
        ({"Test": ["CMD", "a"], "Interval": "soon"}, "Interval is 'soon'"),
        ({"Test": ["CMD", "a"], "Interval": "1 s"}, "Interval is '1 s'"),
        ({"Test": ["CMD", "a"], "Timeout": -1}, "Timeout is -1"),
        ({"Test": ["CMD", "a"], "Timeout": True}, "Timeout is True"),
        ({"Test": ["CMD", "a"], "Timeout": 1.5}, "Timeout is 1.5"),
        ({"Test": ["CMD", "a"], "StartPeriod": "597h"}, "the boot contract allows 2147483647"),
        ({"Test": ["CMD", "a"], "Retries": -1}, "Retries is -1"),
        ({"Test": ["CMD", "a"], "Retries": 1001}, "Retries is 1001"),
        ({"Test": ["CMD", "a"], "Retries": "3"}, "Retries is '3'"),
    ],
)
def test_what_cannot_be_a_check_is_refused_with_its_place(label: Any, said: str) -> None:
    with pytest.raises(BuildError) as caught:
        read(label=label)
    assert caught.value.message.startswith("Dockerfile:3: the health check cannot be used: ")
    assert said in caught.value.message
    assert LABEL in str(caught.value.hint)


def test_keys_of_a_newer_engine_are_let_be() -> None:
    assert read({"Test": ["CMD", "a"], "Novelty": 1}) is not None


def test_a_verdict_takes_the_start_period_and_all_failures_at_most() -> None:
    found = read({"Test": ["CMD", "x"], "Interval": 2 * S, "Timeout": S, "StartPeriod": 5 * S})
    assert found is not None and found.verdict == 5_000 + 3 * (2_000 + 1_000)
