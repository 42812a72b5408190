"""Uniform outliers: counts, norms, moments and independence of the bank."""

from __future__ import annotations

import math

import torch

from ood_lab.synthesizer.random_sphere import RandomSphere
from ood_lab.types import Outliers


def sample(bank: torch.Tensor, per_class: int, seed: int = 0) -> Outliers:
    return RandomSphere(per_class=per_class).sample(bank, torch.Generator().manual_seed(seed))


def test_sample_gives_unit_points_for_each_class_without_a_source() -> None:
    outliers = sample(torch.zeros(3, 2, 6), 5)
    assert outliers.values.shape == (15, 6)
    torch.testing.assert_close(outliers.values.norm(dim=1), torch.ones(15))
    assert outliers.source_class.tolist() == [-1] * 15
    assert outliers.info == {}


def test_sample_has_the_moments_of_the_uniform_distribution() -> None:
    n, dim = 40000, 4
    z = sample(torch.zeros(4, 1, dim), n // 4).values.double()
    assert z.mean(0).abs().max() < 5 / math.sqrt(n * dim)
    assert (z.T @ z / n - torch.eye(dim, dtype=torch.float64) / dim).abs().max() < 5 * 0.26 / math.sqrt(n)
    assert z.pow(4).mean(0).sub(3 / (dim * (dim + 2))).abs().max() < 5 * 0.2 / math.sqrt(n)


def test_sample_knows_nothing_of_the_bank() -> None:
    assert torch.equal(sample(torch.zeros(3, 2, 6), 5).values, sample(torch.ones(3, 2, 6), 5).values)


def test_sample_is_a_function_of_the_seed() -> None:
    bank = torch.zeros(3, 2, 6)
    assert torch.equal(sample(bank, 5, seed=1).values, sample(bank, 5, seed=1).values)
    assert not torch.equal(sample(bank, 5, seed=1).values, sample(bank, 5, seed=2).values)


def test_sample_has_the_type_of_the_bank_and_no_gradient() -> None:
    values = sample(torch.zeros(3, 2, 6, dtype=torch.float64, requires_grad=True), 5).values
    assert values.dtype == torch.float64
    assert not values.requires_grad
