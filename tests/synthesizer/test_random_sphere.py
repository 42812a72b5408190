"""Uniform outliers: counts, norms, moments."""

from __future__ import annotations

import math

import torch

from ood_lab.parts import Dimensions
from ood_lab.synthesizer.random_sphere import RandomSphere
from ood_lab.types import Outliers


def sample(classes: int, dim: int, per_class: int, seed: int = 0) -> Outliers:
    dims = Dimensions(classes, 3, dim)
    return RandomSphere(per_class=per_class).sample({}, dims, torch.Generator().manual_seed(seed))


def test_sample_gives_unit_points_for_each_class_without_a_source() -> None:
    outliers = sample(3, 6, 5)
    assert outliers.values.shape == (15, 6)
    torch.testing.assert_close(outliers.values.norm(dim=1), torch.ones(15))
    assert outliers.source_class.tolist() == [-1] * 15
    assert outliers.info == {}


def test_sample_has_the_moments_of_the_uniform_distribution() -> None:
    n, dim = 40000, 4
    z = sample(4, dim, n // 4).values.double()
    assert z.mean(0).abs().max() < 5 / math.sqrt(n * dim)
    assert (z.T @ z / n - torch.eye(dim, dtype=torch.float64) / dim).abs().max() < 5 * 0.26 / math.sqrt(n)
    assert z.pow(4).mean(0).sub(3 / (dim * (dim + 2))).abs().max() < 5 * 0.2 / math.sqrt(n)


def test_it_keeps_nothing_and_is_a_function_of_the_seed() -> None:
    assert RandomSphere(per_class=5).keeps() == {}
    assert torch.equal(sample(3, 6, 5, seed=1).values, sample(3, 6, 5, seed=1).values)
    assert not torch.equal(sample(3, 6, 5, seed=1).values, sample(3, 6, 5, seed=2).values)
