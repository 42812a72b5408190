"""The posterior of a Bayesian linear regression against the inverse of its precision, and against many draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.geometry.posterior import Posterior, posterior
from tests.cases import each
from tests.views import normal

Array = np.ndarray


def regression(rows: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    mix = torch.eye(dim, dtype=torch.float64) + 0.5 * normal(dim, dim, seed=seed + 2)
    return normal(rows, dim, seed=seed) @ mix, 3 * normal(rows, seed=seed + 1)


def found(z: Tensor, y: Tensor, prior: float, noise: float) -> Posterior:
    return posterior(z.T @ z, z.T @ y, prior, noise)


def posterior_naive(z: Array, y: Array, prior: float, noise: float) -> tuple[Array, Array]:
    """Row by row: the precision gains z z^T / noise, and the mean solves it for the sum of y z / noise."""
    precision, pulled = np.eye(z.shape[1]) / prior, np.zeros(z.shape[1])
    for row, value in zip(z, y, strict=True):
        precision += np.outer(row, row) / noise
        pulled += value * row / noise
    covariance = np.linalg.inv(precision)
    return covariance @ pulled, covariance


def covariance_of(got: Posterior, widening: float = 1.0) -> Array:
    """The sum over all axes of the outer products of what a draw adds to the mean."""
    total = np.zeros((len(got.mean), len(got.mean)))
    for axis in torch.eye(len(got.mean), dtype=torch.float64):
        offset = (got.draw(axis, widening) - got.mean).numpy()
        total += np.outer(offset, offset)
    return total


@each(("prior", "noise"), [(20.0, 0.5), (1.0, 1.0), (0.01, 3.0), (500.0, 0.02)])
@each(("rows", "dim"), [(40, 5), (3, 7), (1, 1), (0, 3), (200, 12)])
def test_mean_and_covariance_match_the_inverse(rows: int, dim: int, prior: float, noise: float) -> None:
    z, y = regression(rows, dim)
    got = found(z, y, prior, noise)
    mean, covariance = posterior_naive(z.numpy(), y.numpy(), prior, noise)
    assert got.mean.dtype == torch.float64
    np.testing.assert_allclose(got.mean.numpy(), mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(covariance_of(got), covariance, rtol=1e-8, atol=1e-10)


@each("widening", [0.25, 1.0, 20.0])
def test_widening_is_a_factor_of_the_covariance_and_leaves_the_mean_alone(widening: float) -> None:
    z, y = regression(40, 5)
    got = found(z, y, 20.0, 0.5)
    _, covariance = posterior_naive(z.numpy(), y.numpy(), 20.0, 0.5)
    np.testing.assert_allclose(covariance_of(got, widening), widening * covariance, rtol=1e-8, atol=1e-12)
    assert torch.equal(got.draw(torch.zeros(5, dtype=torch.float64), widening), got.mean)


@each("widening", [1.0, 9.0])
def test_many_draws_have_the_mean_and_the_covariance(widening: float) -> None:
    z, y = regression(4, 3)
    got = found(z, y, 2.0, 0.5)
    draws = torch.stack([got.draw(n, widening) for n in normal(6000, 3, seed=7)]).numpy()
    mean, covariance = posterior_naive(z.numpy(), y.numpy(), 2.0, 0.5)
    white = np.linalg.inv(np.linalg.cholesky(widening * covariance))
    centred = (draws - mean) @ white.T
    assert np.abs(centred.mean(0)).max() < 5 / np.sqrt(6000)
    assert np.abs(np.cov(centred.T) - np.eye(3)).max() < 5 * np.sqrt(2 / 6000)


def test_one_dimension_is_the_textbook_formula() -> None:
    got = posterior(torch.tensor([[6.0]]).double(), torch.tensor([4.0]).double(), prior=0.5, noise=2.0)
    assert float(got.mean) == pytest.approx((4 / 2) / (6 / 2 + 1 / 0.5))
    assert float(covariance_of(got)[0, 0]) == pytest.approx(1 / 5)


def test_features_that_are_always_zero_keep_their_prior() -> None:
    z, y = regression(30, 4)
    z[:, 2] = 0
    got = found(z, y, 20.0, 0.5)
    covariance = covariance_of(got)
    assert float(got.mean[2]) == 0
    assert covariance[2, 2] == pytest.approx(20)
    assert np.abs(np.delete(covariance[2], 2)).max() < 1e-12


def test_much_data_gives_the_weights_that_made_it() -> None:
    z, _ = regression(5000, 4)
    weights = normal(4, seed=5)
    got = found(z, z @ weights + 0.1 * normal(5000, seed=6), prior=20.0, noise=0.01)
    torch.testing.assert_close(got.mean, weights, atol=0.02, rtol=0)
    assert covariance_of(got).max() < 1e-4


def test_repeated_columns_of_large_features_give_a_finite_draw() -> None:
    z = (100 * normal(2000, 3).abs())[:, [0, 1, 2, 2, 1]]
    got = found(z, torch.ones(2000, dtype=torch.float64), 20.0, 0.5)
    mean, covariance = posterior_naive(z.numpy(), np.ones(2000), 20.0, 0.5)
    np.testing.assert_allclose(got.mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(covariance_of(got), covariance, rtol=1e-4, atol=1e-4)
