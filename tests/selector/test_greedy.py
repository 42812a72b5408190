"""The lowest energies against sorting them in a loop."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.parts import Rows
from ood_lab.selector.greedy import Greedy
from tests.cases import each
from tests.method.test_base import NoWaiting
from tests.selector.candidates import CLASSES, assert_valid, degenerate, energies, outputs, rows_of, seeded
from tests.views import normal


def greedy_naive(scores: list[float], take: int, skip: float) -> list[int]:
    """Leave out a share from below, but not so many that too few are left."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    left_out = math.floor(skip * len(scores))
    while left_out and len(scores) - left_out < take:
        left_out -= 1
    return order[left_out : left_out + take]


@each("skip", [0.0, 0.125, 0.25, 0.5, 0.75])
@each(("count", "take"), [(40, 7), (40, 10), (40, 30), (40, 40), (40, 60), (1, 1), (7, 3)])
def test_the_choice_matches_the_loop(count: int, take: int, skip: float) -> None:
    for seed in range(3):
        found = outputs(count, seed)
        got = Greedy(skip=skip).choose(rows_of(normal(count, 2), found), count, take, seeded())
        assert_valid(got, count, take)
        assert set(got.tolist()) == set(greedy_naive(energies(found), take, skip))


def test_the_first_is_the_lowest_that_is_not_left_out() -> None:
    found = outputs(20)
    for skip in (0.0, 0.5):
        got = Greedy(skip=skip).choose(rows_of(normal(20, 2), found), 20, 6, seeded())
        assert got.tolist() == greedy_naive(energies(found), 6, skip)


def test_a_sure_prediction_is_taken_before_an_unsure_one() -> None:
    found = torch.tensor([[1.0, 1, 1], [9, 0, 0], [3, 3, 3], [-9, -9, -9]])
    assert Greedy().choose(Rows(logits=found).of_classes(3), 4, 3, seeded()).tolist() == [1, 2, 0]


def test_only_outputs_of_the_classes_count() -> None:
    found = outputs(20)
    changed = torch.cat([found[:, :-1], 100 * normal(20, 1, seed=3)], dim=1)
    got = [Greedy().choose(Rows(logits=x).of_classes(CLASSES), 20, 5, seeded()).tolist() for x in (found, changed)]
    assert got[0] == got[1]
    assert Greedy().choose(Rows(logits=changed), 20, 5, seeded()).tolist() != got[0]


def test_of_equal_energies_the_first_are_taken() -> None:
    rows = Rows(logits=torch.zeros(2000, 3))
    assert Greedy().choose(rows, 2000, 4, seeded()).tolist() == [0, 1, 2, 3]
    assert Greedy(skip=0.25).choose(rows, 2000, 4, seeded()).tolist() == [500, 501, 502, 503]


def test_an_energy_that_is_no_number_comes_last() -> None:
    found = outputs(12)
    found[[0, 4, 9]] = math.nan
    got = Greedy().choose(rows_of(normal(12, 2), found), 12, 9, seeded())
    assert set(got.tolist()) == set(range(12)) - {0, 4, 9}


@each("skip", [0.0, 0.5])
@each("take", [1, 5, 12, 30])
def test_candidates_that_tell_nothing_are_still_chosen_from(take: int, skip: float) -> None:
    for rows in degenerate(12).values():
        assert_valid(Greedy(skip=skip).choose(rows, 12, take, seeded()), 12, take)


def test_it_reads_the_logits_alone_and_no_generator() -> None:
    assert Greedy.reads == ("logits",)
    assert Greedy(candidates=9).candidates == 9
    draw = seeded()
    before = draw.get_state()
    Greedy().choose(Rows(logits=outputs(8)).of_classes(CLASSES), 8, 3, draw)
    assert torch.equal(draw.get_state(), before)
    with pytest.raises(LookupError, match="logits"):
        Greedy().choose(Rows(features=normal(8, 2)), 8, 3, draw)


def test_nothing_waits_for_the_device() -> None:
    rows = rows_of(normal(20, 2), outputs(20))
    with NoWaiting():
        Greedy(skip=0.3).choose(rows, 20, 5, seeded())
