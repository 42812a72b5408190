"""A random choice of candidates: how many, which, and how often."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import torch
from scipy.stats import chisquare

from ood_lab.parts import Rows
from ood_lab.selector.random import Random
from tests.cases import each
from tests.method.test_base import NoWaiting
from tests.selector.candidates import assert_valid, seeded


def taken(count: int, take: int, draw: torch.Generator) -> list[int]:
    found = Random().choose(Rows(), count, take, draw)
    assert_valid(found, count, take)
    return found.tolist()


@each(("count", "take"), [(10, 4), (10, 1), (10, 10), (3, 8), (1, 1)])
def test_it_takes_as_many_as_asked_or_all_and_none_twice(count: int, take: int) -> None:
    for seed in range(20):
        assert len(taken(count, take, seeded(seed))) == min(count, take)


def test_every_set_of_candidates_is_equally_likely() -> None:
    draw, seen = seeded(), Counter()
    for _ in range(3000):
        seen[tuple(sorted(taken(6, 2, draw)))] += 1
    assert set(seen) == set(combinations(range(6), 2))
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_the_choice_is_a_function_of_its_generator_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = taken(50, 20, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert taken(50, 20, seeded(1)) == first
    assert taken(50, 20, seeded(2)) != first


def test_it_reads_nothing_and_keeps_the_number_of_its_candidates() -> None:
    assert Random.reads == ()
    assert Random().candidates is None
    assert Random(candidates=12).candidates == 12


def test_nothing_waits_for_the_device() -> None:
    with NoWaiting():
        Random().choose(Rows(), 20, 5, seeded())
