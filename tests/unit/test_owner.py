"""Whose a container is, and whether that process is gone."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from fcbuild.build import owner

DAY_S = 24 * 3600.0


def test_this_process_is_not_gone() -> None:
    assert not owner.gone(owner.ours(), age_s=0)
    assert not owner.gone(owner.ours(), age_s=100 * DAY_S)
    assert owner.ours().split()[-2] == str(os.getpid())


def test_a_process_that_ended_is_gone_at_once() -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=lambda: answers.put(owner.ours()))
    child.start()
    label = answers.get()
    child.join(20)
    assert owner.gone(label, age_s=0)


def test_another_process_of_the_same_number_is_another() -> None:
    machine, pid, began = owner.ours().rsplit(" ", 2)
    assert owner.gone(f"{machine} {pid} {int(began) - 1}", age_s=0)


@pytest.mark.parametrize("where", ["0-0 pid:[1]", "same"])
def test_a_process_that_cannot_be_seen_is_given_a_day(where: str) -> None:
    boot = owner.ours().split()[0]
    label = f"{where.replace('same', f'{boot} pid:[1]')} 1 1"
    assert not owner.gone(label, age_s=DAY_S / 2)
    assert owner.gone(label, age_s=2 * DAY_S)


@pytest.mark.parametrize("label", ["", "x", "a b c d", "a pid:[1] x y", "a pid:[1", "pid:[1] 2 3"])
def test_a_container_of_the_users_is_never_ours(label: str) -> None:
    assert not owner.gone(label, age_s=100 * DAY_S)
