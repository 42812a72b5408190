"""A random choice of candidates: how many, which, and how often."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from ood_lab.network import Network
from ood_lab.selector.random import Random


def unused(*_: Any) -> Any:
    raise AssertionError("a random choice asks no network")


NETWORK = Network(torch.nn.Identity(), unused)


def candidates(count: int) -> torch.Tensor:
    """Each image filled with its number."""
    return torch.arange(count).float()[:, None, None, None].expand(-1, 3, 2, 2).clone()


def taken(count: int, take: int, draw: torch.Generator) -> list[int]:
    images = Random(take=take)(candidates(count), NETWORK, draw)
    assert all((image == image[0, 0, 0]).all() for image in images)
    return [int(image[0, 0, 0]) for image in images]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("count", "take"), [(10, 4), (10, 1), (10, 10), (3, 8), (1, 1)])
def test_it_takes_as_many_as_asked_or_all_and_none_twice(count: int, take: int) -> None:
    for seed in range(20):
        found = taken(count, take, seeded(seed))
        assert len(found) == min(count, take)
        assert len(set(found)) == len(found)
        assert set(found) <= set(range(count))


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


def test_candidates_are_left_as_they_were() -> None:
    images = candidates(5)
    Random(take=3)(images, NETWORK, seeded()).zero_()
    assert torch.equal(images, candidates(5))
