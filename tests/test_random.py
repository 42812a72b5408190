"""Random streams: seeds of purposes, the law of Beta draws, and what each device applies of a batch's draws."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from ood_lab.random import Draws, beta, derive_seed, generator, share, uniform
from tests.cases import each

N = 20_000
LAWS = [(0.1, 0.1), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (3.0, 1.0), (1.0, 3.0), (0.3, 7.0), (50.0, 20.0)]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each(("a", "b"), LAWS)
def test_shares_follow_beta_with_the_first_number_for_the_side_of_one(a: float, b: float) -> None:
    found = beta(a, b, (N // 4, 4), draws(2))
    law = stats.beta(a, b)
    assert found.shape == (N // 4, 4)
    assert found.dtype == torch.float64
    assert ((found >= 0) & (found <= 1)).all()
    assert found.mean().item() == pytest.approx(law.mean(), abs=5 * law.std() / math.sqrt(N))
    assert stats.kstest(found.flatten().numpy(), law.cdf).pvalue > 1e-3


def test_small_shares_do_not_vanish() -> None:
    found = beta(0.1, 5.0, (N,), draws(1))
    assert found.min() > 0
    law = stats.beta(0.1, 5.0)
    assert (found < 1e-20).double().mean().item() == pytest.approx(law.cdf(1e-20), abs=0.005)


@each(("a", "b"), [(2.0, 2.0), (3.0, 1.0), (0.3, 7.0)])
def test_shares_depend_on_the_generator_alone_and_move_it_on(a: float, b: float) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    stream = draws(5)
    first, second = beta(a, b, (7, 2), stream), beta(a, b, (7, 2), stream)
    assert torch.equal(torch.rand(3), expected), "the global generator is left alone"
    assert torch.equal(first, beta(a, b, (7, 2), draws(5)))
    assert not torch.equal(first, beta(a, b, (7, 2), draws(6)))
    assert (first != second).all()
    assert beta(a, b, (), draws(5)).shape == ()


@each(("low", "high"), [(0.0, 1.0), (-3.0, 2.0), (0.1, 0.3)])
def test_uniform_is_uniform_between_its_ends(low: float, high: float) -> None:
    found = uniform(N, low, high, draws(3))
    assert found.shape == (N,)
    assert low <= found.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < found.max() <= high
    assert stats.kstest(found.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert torch.equal(found, uniform(N, low, high, draws(3)))
    assert not torch.equal(found, uniform(N, low, high, draws(4)))


@each("world", [1, 2, 3, 8])
def test_a_device_has_every_so_manieth_row_of_every_draw(world: int) -> None:
    whole: Draws = {"number": torch.arange(24), "place": torch.arange(48).view(24, 2), "no": torch.zeros(24).bool()}
    shares = [share(whole, rank, world) for rank in range(world)]
    for rank, found in enumerate(shares):
        assert found.keys() == whole.keys()
        assert found["number"].tolist() == [row for row in range(24) if row % world == rank]
        assert found["place"].tolist() == [[2 * row, 2 * row + 1] for row in range(24) if row % world == rank]
    assert sorted(torch.cat([found["number"] for found in shares]).tolist()) == list(range(24))
    assert share({}, 0, world) == {}


def test_a_seed_is_a_function_of_all_its_parts_in_their_order() -> None:
    parts = [(0,), (1,), (0, "a"), ("a", 0), (0, "b"), (0, "a", 1), (0, "a", 1, 2), (0, "a", 2, 1), (0, "a", 12)]
    seeds = [derive_seed(*some) for some in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [derive_seed(*some) for some in parts]
    for some in parts:
        found = torch.rand(4, generator=generator(*some))
        assert torch.equal(found, torch.rand(4, generator=draws(derive_seed(*some))))
