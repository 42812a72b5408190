"""VOS's tail of a Gaussian against loops, scipy's quantiles, and draws of which the least likely are sorted out."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ood_lab.config import RequestError, prepare
from ood_lab.synthesizer.gaussian_tail import (
    GaussianTail,
    chi_quantile,
    largest_radii,
    tail_points,
    tied_gaussian,
)
from tests.cases import each

Array = np.ndarray
RIDGE = 1e-4


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=draws(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=draws(seed), dtype=torch.float64)


def clusters(classes: int, rows: int, dim: int, apart: float = 5.0, seed: int = 0) -> Tensor:
    """Clusters of one covariance that is far from a multiple of I, and correlated."""
    mix = normal(dim, dim, seed=seed + 2) * torch.linspace(0.2, 2, dim, dtype=torch.float64)
    return apart * normal(classes, 1, dim, seed=seed) + normal(classes, rows, dim, seed=seed + 1) @ mix


def tied_gaussian_naive(bank: Array, ridge: float) -> tuple[Array, Array]:
    """Class means, and the covariance of the class-centred rows divided by C N, + ridge I."""
    classes, rows, dim = bank.shape
    means = np.zeros((classes, dim))
    for c in range(classes):
        for row in bank[c]:
            means[c] += row / rows
    covariance = ridge * np.eye(dim)
    for c in range(classes):
        for row in bank[c]:
            for i in range(dim):
                for j in range(dim):
                    covariance[i, j] += (row[i] - means[c, i]) * (row[j] - means[c, j]) / (classes * rows)
    return means, covariance


def largest_radii_naive(uniforms: list[float], m: int, dim: int) -> list[float]:
    """V1^(1/M), that times V2^(1/(M-1)), and so on, each as a quantile of chi; as logarithms, for the digits near 1."""
    radii, log_level = [], 0.0
    for k, v in enumerate(uniforms):
        log_level += math.log(v) / (m - k)
        radii.append(chi_naive(math.exp(log_level), -math.expm1(log_level), dim))
    return radii


def chi_naive(level: float, above: float, dim: int) -> float:
    return float(stats.chi.ppf(level, dim) if level < 0.5 else stats.chi.isf(above, dim))


def radii_of(points: Tensor, mean: Array, covariance: Array) -> Array:
    centred = points.double().numpy() - mean
    return np.sqrt(np.einsum("...i,ij,...j->...", centred, np.linalg.inv(covariance), centred))


# The Gaussian.


@each("ridge", [0.0, 1e-4, 0.5])
@each(("classes", "rows", "dim"), [(4, 9, 3), (2, 30, 5), (1, 6, 2), (3, 2, 1)])
def test_tied_gaussian_matches_the_loop(classes: int, rows: int, dim: int, ridge: float) -> None:
    bank = clusters(classes, rows, dim)
    means, factor = tied_gaussian(bank, ridge)
    expected_means, expected = tied_gaussian_naive(bank.numpy(), ridge)
    np.testing.assert_allclose(means.numpy(), expected_means, atol=1e-12)
    covariance = (factor.double() @ factor.double().T).numpy()
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_classes_share_one_covariance_that_their_distances_do_not_enter() -> None:
    bank = clusters(4, 9, 3)
    moved = bank + 100 * normal(4, 1, 3, seed=9)
    torch.testing.assert_close(tied_gaussian(moved, RIDGE)[1], tied_gaussian(bank, RIDGE)[1], atol=1e-9, rtol=0)


@each(("scale", "ridge"), [(1.0, 0.0), (100.0, RIDGE)])
@each("dim", [8, 128])
def test_tied_gaussian_of_float32_rows_along_one_line_is_that_of_float64(dim: int, scale: float, ridge: float) -> None:
    bank = (scale * (5 + normal(4, 100, 1)) * (0.5 + uniform(dim, seed=1))).float()
    single, double = (tied_gaussian(rows, ridge)[1].double() for rows in (bank, bank.double()))
    expected = double @ double.T
    torch.testing.assert_close(single @ single.T, expected, atol=1e-4 * float(expected.max()), rtol=0)


# Radii.


@each("dim", [1, 2, 3, 10, 128, 512])
@each(("m", "k"), [(1, 1), (10, 1), (10, 10), (10000, 1), (10000, 200)])
def test_largest_radii_are_the_quantiles_of_falling_uniform_numbers(m: int, k: int, dim: int) -> None:
    v = uniform(2, k)
    got = largest_radii(v, m, dim)
    assert got.shape == (2, k)
    for row, uniforms in zip(got.tolist(), v.tolist(), strict=True):
        assert row == pytest.approx(largest_radii_naive(uniforms, m, dim), rel=1e-6, abs=0)


@each("dim", [1, 3, 128])
def test_all_of_many_draws_are_the_quantiles_of_falling_uniform_numbers(dim: int) -> None:
    m = 10000
    v = uniform(1, m)
    level = np.cumsum(np.log(v[0].numpy()) / np.arange(m, 0, -1))
    expected = np.where(level < -0.7, stats.chi.ppf(np.exp(level), dim), stats.chi.isf(-np.expm1(level), dim))
    np.testing.assert_allclose(largest_radii(v, m, dim)[0].numpy(), expected, rtol=1e-6)


@each("v", [1e-12, 0.5, 1 - 1e-6, 1 - 1e-10])
def test_largest_radii_keep_their_digits_far_out(v: float) -> None:
    radii = largest_radii(torch.full((1, 3), v, dtype=torch.float64), 10000, 10)[0].tolist()
    assert radii == pytest.approx(largest_radii_naive([v] * 3, 10000, 10), rel=1e-6, abs=0)


@each("dim", [1, 10, 512])
def test_largest_radii_fall(dim: int) -> None:
    assert (largest_radii(uniform(50, 20), 20, dim).diff(dim=1) < 0).all()


@each("dtype", [torch.float32, torch.float64])
@each("v", [0.0, 1e-30, 1 - 2.0**-24, 1.0])
def test_largest_radii_are_finite_at_the_ends_of_the_uniform_numbers(v: float, dtype: torch.dtype) -> None:
    for dim in (1, 512):
        got = largest_radii(torch.full((1, 3), v, dtype=dtype), 10000, dim)
        assert got.isfinite().all()
        assert (got >= 0).all()


@each("m", [10, 10000])
def test_largest_radii_in_float32_are_those_in_float64(m: int) -> None:
    v = uniform(20, 5).float()
    single, double = largest_radii(v, m, 128), largest_radii(v.double(), m, 128)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


@each("dim", [1, 2, 3, 10, 128, 512])
def test_chi_quantile_is_scipys_at_the_level_of_the_normal_quantile(dim: int) -> None:
    x = np.linspace(-6, 8, 2003)
    below = stats.chi.ppf(stats.norm.cdf(x), dim)
    expected = np.where(x < 0, below, stats.chi.isf(stats.norm.sf(x), dim))
    got = chi_quantile(torch.from_numpy(x), dim).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-8, rtol=0)
    assert (np.diff(got) > 0).all()


# The law.

REPEATS = 10000


def one_cluster() -> Tensor:
    return clusters(1, 12, 3, seed=4)


@cache
def both_tails(m: int, k: int) -> tuple[Array, Array, Array, Array]:
    """Points [R, K, 3] of the class and by sorting M draws by density, and the Gaussian's mean and covariance."""
    bank = one_cluster()
    means, covariance = tied_gaussian_naive(bank.numpy(), RIDGE)
    tail = GaussianTail(per_class=k, draws=m, ridge=RIDGE, bank_size=12).tail(bank.expand(REPEATS, -1, -1), draws(5))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values) @ vectors.T
    points = means[0] + np.random.default_rng(6).standard_normal((REPEATS, m, 3)) @ root
    density = stats.multivariate_normal(means[0], covariance).logpdf(points).reshape(REPEATS, m)
    least = np.argsort(density, axis=1)[:, :k]
    return tail.numpy(), np.take_along_axis(points, least[:, :, None], axis=1), means[0], covariance


@each(("m", "k"), [(1, 1), (3, 3), (6, 4), (40, 2)])
def test_radii_have_the_law_of_the_least_likely_of_all_draws(m: int, k: int) -> None:
    tail, least, mean, covariance = both_tails(m, k)
    got, expected = (radii_of(torch.from_numpy(points), mean, covariance) for points in (tail, least))
    for j in range(k):
        assert stats.ks_2samp(got[:, j], expected[:, j]).pvalue > 1e-3
    for j in range(k - 1):
        assert stats.ks_2samp(got[:, j] - got[:, j + 1], expected[:, j] - expected[:, j + 1]).pvalue > 1e-3
    together, sorted_out = np.atleast_2d(np.cov(got.T)), np.atleast_2d(np.cov(expected.T))
    assert np.abs(together - sorted_out).max() < 5 * 0.5 * math.sqrt(2 * 2 / REPEATS)


@each(("m", "k"), [(6, 4), (40, 2)])
def test_points_have_the_law_of_the_least_likely_of_all_draws_in_every_coordinate(m: int, k: int) -> None:
    tail, least, mean, _ = both_tails(m, k)
    sides = np.random.default_rng(7).standard_normal((4, 3))
    for side in np.concatenate((np.eye(3), sides)):
        for j in range(k):
            assert stats.ks_2samp((tail[:, j] - mean) @ side, (least[:, j] - mean) @ side).pvalue > 1e-3


def test_radii_of_many_draws_are_the_order_statistics_of_chi() -> None:
    m, bank = 10000, clusters(1, 40, 16, seed=4)
    means, covariance = tied_gaussian_naive(bank.numpy(), RIDGE)
    tail = GaussianTail(per_class=3, draws=m, ridge=RIDGE, bank_size=40).tail(bank.expand(2000, -1, -1), draws(5))
    radii = radii_of(tail, means[0], covariance)
    log_level = np.log1p(-stats.chi.sf(radii, 16))
    steps = np.exp(np.diff(log_level, axis=1, prepend=0) * (m - np.arange(3)))
    for j in range(3):
        assert stats.kstest(steps[:, j], "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(steps.T) - np.eye(3)).max() < 5 / math.sqrt(2000)


def test_directions_are_uniform_and_independent_of_radii_and_of_each_other() -> None:
    tail, _, mean, covariance = both_tails(6, 4)
    turned = np.linalg.solve(np.linalg.cholesky(covariance), (tail - mean).reshape(-1, 3).T).T.reshape(tail.shape)
    radii = np.linalg.norm(turned, axis=2)
    units = turned / radii[:, :, None]
    bound = 5 / math.sqrt(REPEATS)
    for j in range(4):
        u = units[:, j]
        assert np.abs(u.mean(0)).max() < bound
        assert np.abs(u.T @ u / REPEATS - np.eye(3) / 3).max() < bound / 3
        for i in range(3):
            assert stats.kstest(u[:, i], "uniform", args=(-1, 2)).pvalue > 1e-3  # Archimedes
            for power in (1, 2):
                assert abs(np.corrcoef(u[:, i] ** power, radii[:, j])[0, 1]) < bound
        for other in range(j):
            assert abs((u * units[:, other]).sum(1).mean()) < bound


# Points.


@each(("m", "k"), [(1, 1), (5, 5), (10000, 3)])
def test_tail_points_match_the_loop(m: int, k: int) -> None:
    bank, directions, v = clusters(4, 9, 6), normal(4, k, 6, seed=3), uniform(4, k, seed=4)
    got = tail_points(bank, directions_CKD=directions, uniform_CK=v, draws=m, ridge=0.01).numpy()
    factor = tied_gaussian(bank, 0.01)[1].numpy()
    means, covariance = tied_gaussian_naive(bank.numpy(), 0.01)
    for c in range(4):
        radii = largest_radii_naive(v[c].tolist(), m, 6)
        for j in range(k):
            d = directions[c, j].numpy()
            length = math.sqrt(sum(x * x for x in d.tolist()))
            np.testing.assert_allclose(got[c, j], means[c] + factor @ d / length * radii[j], rtol=1e-6)
            assert radii_of(torch.from_numpy(got[c, j]), means[c], covariance) == pytest.approx(radii[j], rel=1e-3)


def test_ridge_is_1e_4_unless_given() -> None:
    bank = 1e-3 * clusters(3, 9, 4)
    given: dict[str, Any] = {"directions_CKD": normal(3, 2, 4), "uniform_CK": uniform(3, 2)}
    assert torch.equal(tail_points(bank, draws=9, **given), tail_points(bank, draws=9, ridge=1e-4, **given))
    assert not torch.allclose(tail_points(bank, draws=9, **given), tail_points(bank, draws=9, ridge=1e-2, **given))


def test_tail_points_in_float32_are_those_in_float64_even_far_from_the_origin() -> None:
    bank = (clusters(3, 50, 16) + 1000).float()
    given: dict[str, Any] = {"directions_CKD": normal(3, 4, 16).float(), "uniform_CK": uniform(3, 4).float()}
    single = tail_points(bank, draws=10000, **given)
    double = tail_points(bank.double(), draws=10000, **{name: value.double() for name, value in given.items()})
    torch.testing.assert_close(single.double(), double, atol=0.01, rtol=0)


# The synthesizer.


def sampler(**changes: Any) -> GaussianTail:
    return GaussianTail(**{"per_class": 3, "draws": 100, "ridge": RIDGE, "bank_size": 20, **changes})


@each("dtype", [torch.float32, torch.float64])
def test_draw_gives_the_tail_of_each_class_in_the_dtype_of_the_bank(dtype: torch.dtype) -> None:
    bank = clusters(5, 20, 6).to(dtype)
    outliers = sampler().draw(bank, draws())
    assert outliers.values.shape == (15, 6)
    assert outliers.values.dtype == dtype
    assert outliers.source_class.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    torch.testing.assert_close(outliers.values, sampler().tail(bank, draws()).reshape(15, 6))


def test_every_point_lies_around_the_class_it_came_from() -> None:
    bank = clusters(5, 20, 6, apart=1000.0).float()
    outliers = sampler().draw(bank, draws())
    nearest = torch.cdist(outliers.values, bank.mean(1)).argmin(1)
    assert nearest.tolist() == outliers.source_class.tolist()


def test_it_keeps_penultimate_features() -> None:
    assert sampler().space == "penultimate"
    assert list(sampler().keeps()) == ["feature_bank"]


def test_every_option_reaches_the_points() -> None:
    bank = clusters(5, 20, 6)
    base = sampler().draw(bank, draws()).values
    assert not torch.equal(base, sampler(draws=101).draw(bank, draws()).values)
    assert not torch.equal(base, sampler(ridge=1.0).draw(bank, draws()).values)


def test_fewer_draws_than_points_are_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match=r"per_class=8: expected at most 7, the value of synthesizer.draws"):
        prepare(["method=vos", "synthesizer.per_class=8", "synthesizer.draws=7"])
    assert sampler(per_class=8, draws=8).draw(clusters(2, 20, 6), draws()).values.isfinite().all()


@each("dtype", [torch.float32, torch.float64])
@each("ridge", [0.0, RIDGE])
@each("kind", ["equal rows", "dead feature", "one point", "zeros", "one row", "copied feature"])
def test_a_singular_covariance_gives_finite_points(kind: str, ridge: float, dtype: torch.dtype) -> None:
    bank = clusters(3, 20, 6).to(dtype)
    if kind == "equal rows":
        bank = bank[:, :1].expand(-1, 20, -1)
    elif kind == "dead feature":
        bank[..., 2] = 0
    elif kind == "one point":
        bank = bank[:1, :1].expand(3, 20, -1)
    elif kind == "zeros":
        bank = torch.zeros_like(bank)
    elif kind == "one row":
        bank = bank[:, :1]
    else:
        bank[..., 2] = bank[..., 3]
    values = sampler(ridge=ridge).draw(bank, draws()).values
    assert values.isfinite().all()
    spread = 10 * (bank.std() + 1) if kind not in ("equal rows", "one point", "zeros", "one row") else 0.1
    assert (values - bank.mean(1).repeat_interleave(3, 0)).abs().max() < spread


def test_fewer_rows_than_features_give_finite_points() -> None:
    bank = 3 + 0.1 * normal(2, 5, 128).float().relu()
    assert sampler().draw(bank, draws()).values.isfinite().all()


def test_points_are_less_likely_than_999_of_1000_rows_of_their_class() -> None:
    bank = clusters(10, 1000, 8)
    outliers = sampler(per_class=1, draws=10000).draw(bank, draws())
    means, factor = tied_gaussian(bank, RIDGE)
    covariance = (factor @ factor.T).numpy()
    for c in range(10):
        rows = radii_of(bank[c], means[c].numpy(), covariance)
        point = radii_of(outliers.values[c], means[c].numpy(), covariance)
        assert (rows < point).mean() >= 0.999
