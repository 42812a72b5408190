"""Time and memory of a computation."""

from __future__ import annotations

import time

import pytest
import torch

from ood_lab.evaluation.cost import REPEATS, Alive, cost_of

CPU = torch.device("cpu")
FLOAT = 4


def test_the_peak_is_what_is_alive_at_once() -> None:
    def compute() -> None:
        a = torch.zeros(1000)
        b = a + 1  # two
        del a
        c = b * 2  # two again
        del b, c
        torch.zeros(1500)

    assert cost_of(compute, CPU, "test").peak_bytes == 2000 * FLOAT


def test_a_view_holds_its_storage_and_costs_nothing_itself() -> None:
    with Alive() as alive:
        a = torch.zeros(1000)
        view = a.view(10, 100)[2:]
        del a
        other = torch.ones(500)
        del view
    assert alive.peak == 1500 * FLOAT
    assert other.sum() == 500


def test_what_was_there_before_does_not_count() -> None:
    before = torch.zeros(10_000)
    with Alive() as alive:
        kept = before[:5_000]
        before.add_(1)
        changed = kept * 2
    assert alive.peak == 5_000 * FLOAT
    assert changed[0] == 2


def test_time_is_the_median_of_the_repeats_after_the_first_run() -> None:
    calls = []

    def compute() -> None:
        calls.append(1)
        time.sleep(0.2 if len(calls) == 1 else 0.01)

    assert cost_of(compute, CPU, "test").seconds == pytest.approx(0.01, abs=0.05)
    assert len(calls) == REPEATS + 1
