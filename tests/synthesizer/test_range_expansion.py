"""Mixtures of queued features against loops, and the least likely of them against scipy's density."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ood_lab.memory import FeatureQueue
from ood_lab.parts import Dimensions
from ood_lab.synthesizer.range_expansion import RangeExpansion, least_likely, mixtures, pairs
from tests.cases import each
from tests.small import batch, losses, method, terms

Array = np.ndarray
N, M, K, D = 60, 400, 25, 6
RIDGE = 1e-4
ESTIMATIONS = ["lowest", "gaussian", "none"]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=draws(seed), dtype=torch.float64)


def correlated(rows: int, dim: int = D, seed: int = 0) -> Tensor:
    """Rows of one Gaussian that is far from a multiple of I, away from zero."""
    return 3 + normal(rows, dim, seed=seed) @ (normal(dim, dim, seed=seed + 1) * torch.linspace(0.1, 2, dim).double())


def synthesizer(**changes: Any) -> RangeExpansion:
    options: dict[str, Any] = {
        "queue_size": N, "pool": M, "take": K, "alpha": 2.0, "shares": "pair", "expansion": True,
        "estimation": "lowest", "ridge": RIDGE,
    }  # fmt: skip
    return RangeExpansion(**{**options, **changes})


def sampled(queue: Tensor, seed: int = 0, **changes: Any) -> Tensor:
    return synthesizer(**changes).sample({"feature_queue": queue}, Dimensions(5, D, D), draws(seed)).values


def log_density(points: Array, of: Array, ridge: float = RIDGE) -> Array:
    """Under the Gaussian of Eqs. 4 and 5, divided by the number of rows, + ridge I."""
    mean, covariance = np.zeros(of.shape[1]), ridge * np.eye(of.shape[1])
    for row in of:
        mean += row / len(of)
    for row in of:
        covariance += np.outer(row - mean, row - mean) / len(of)
    return stats.multivariate_normal(mean, covariance).logpdf(points)


def rows_of(points: Tensor, of: Tensor) -> list[int]:
    """Where each point lies among the rows."""
    found = []
    for point in points:
        (places,) = (of == point).all(1).nonzero(as_tuple=True)
        assert len(places) == 1
        found.append(int(places[0]))
    return found


def on_lines(points: Tensor, queue: Tensor) -> list[tuple[float, int, int]]:
    """For each point the two rows on whose segment it lies, and the share of the nearer one: none comes first."""
    rows, found = queue.double().numpy(), []
    first, second = np.triu_indices(len(rows), 1)
    lines = rows[first] - rows[second]
    for point in points.double().numpy():
        shares = ((point - rows[second]) * lines).sum(1) / (lines**2).sum(1)
        errors = np.abs(rows[second] + shares[:, None] * lines - point).max(1)
        place = int(errors.argmin())
        assert errors[place] < 1e-5
        assert -1e-9 < shares[place] < 1 + 1e-9
        found.append((max(shares[place], 1 - shares[place]), int(first[place]), int(second[place])))
    return found


def assert_beta(shares_of_nearer: list[float], alpha: float) -> None:
    law = stats.beta(alpha, alpha)
    assert stats.kstest(shares_of_nearer, lambda x: law.cdf(x) - law.cdf(1 - x)).pvalue > 1e-3


# Expansion.


def test_mixtures_are_eq_3_row_by_row() -> None:
    queue, first, second = normal(9, 4), torch.tensor([0, 3, 8, 2, 2]), torch.tensor([1, 1, 0, 8, 2])
    share = torch.tensor([0.0, 1.0, 0.3, 0.75, 0.5], dtype=torch.float64)
    found = mixtures(queue, first_M=first, second_M=second, share_M=share)
    for row, i, j, of_first in zip(found, first.tolist(), second.tolist(), share.tolist(), strict=True):
        expected = [
            of_first * a + (1 - of_first) * b for a, b in zip(queue[i].tolist(), queue[j].tolist(), strict=True)
        ]
        assert row.tolist() == pytest.approx(expected, abs=1e-14)


@each("rows", [2, 3, 7])
def test_every_pair_of_different_rows_is_drawn_equally_often(rows: int) -> None:
    first, second = pairs(rows, 40_000, draws(1))
    assert first.shape == second.shape == (40_000,)
    counts = np.zeros((rows, rows))
    np.add.at(counts, (first.numpy(), second.numpy()), 1)
    assert (counts.diagonal() == 0).all()
    assert stats.chisquare(counts[~np.eye(rows, dtype=bool)]).pvalue > 1e-3


def test_a_single_row_is_its_own_partner() -> None:
    assert [x.tolist() for x in pairs(1, 3, draws())] == [[0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(sampled(normal(1, D).float(), pool=5, take=2), normal(1, D).float().expand(2, D))


@each("alpha", [0.5, 2.0, 6.0])
def test_of_each_pair_a_share_is_drawn_from_beta(alpha: float) -> None:
    queue = correlated(12)
    points = synthesizer(alpha=alpha, pool=500).expanded(queue, draws(3))
    assert points.shape == (500, D)
    found = on_lines(points, queue)
    assert_beta([share for share, _, _ in found], alpha)
    assert len({(i, j) for _, i, j in found}) > 60


def test_one_share_of_a_step_is_that_of_all_its_pairs_and_another_in_the_next() -> None:
    queue, shares = correlated(12), []
    for seed in range(40):
        points = synthesizer(shares="step", pool=4).expanded(queue, draws(seed))
        found = [share for share, _, _ in on_lines(points, queue)]
        assert found == pytest.approx([found[0]] * 4, abs=1e-6)
        shares.append(found[0])
    assert_beta(shares, 2.0)


@each("pool", [7, 60, 61, 150, 180])
def test_without_expansion_rows_are_drawn_in_whole_rounds(pool: int) -> None:
    queue = correlated(N)
    points = synthesizer(expansion=False, pool=pool, take=5).expanded(queue, draws(2))
    places = rows_of(points, queue)
    counts = np.bincount(places, minlength=N)
    assert len(places) == pool
    assert counts.min() >= pool // N
    assert counts.max() <= -(-pool // N)
    assert places[:N] != sorted(places[:N])
    assert places != rows_of(synthesizer(expansion=False, pool=pool, take=5).expanded(queue, draws(3)), queue)


# Estimation.


@each("ridge", [1e-6, 1e-4, 0.5, 100.0])
@each(("rows", "dim", "take"), [(400, 6, 25), (50, 2, 1), (30, 12, 29), (9, 3, 9)])
def test_the_least_likely_are_those_below_the_t_th_lowest_density(rows: int, dim: int, take: int, ridge: float) -> None:
    points = correlated(rows, dim)
    found = least_likely(points, take, ridge)
    expected = log_density(points.numpy(), points.numpy(), ridge).argsort()[:take]
    assert found.shape == (take, dim)
    assert sorted(rows_of(found, points)) == sorted(expected.tolist())


def test_the_density_and_not_the_distance_decides_and_the_ridge_counts() -> None:
    points = normal(300, 2) * torch.tensor([10.0, 0.01]).double()
    points[7] = points.mean(0) + torch.tensor([0.0, 0.2]).double()
    assert rows_of(least_likely(points, 1, 1e-8), points) == [7]
    assert rows_of(least_likely(points, 1, 1.0), points) == [int((points - points.mean(0))[:, 0].abs().argmax())]


@each(("ridge", "lowest"), [(3.5, 2.0), (3.7, 3.0), (4.0, 3.0)])
def test_the_covariance_is_divided_by_the_number_of_points(ridge: float, lowest: float) -> None:
    """Distances 9 / (54 / n + r) and 4 / (8 / n + r) are equal at r = 28.8 / n: 3.6 for n = 8, and 4.1 for n = 7."""
    points = torch.tensor([[3.0, 0.0], [-3.0, 0.0]] * 3 + [[0.0, 2.0], [0.0, -2.0]], dtype=torch.float64)
    found = least_likely(points, 2, ridge)
    assert found.abs().amax(1).tolist() == [lowest, lowest]


@each("dtype", [torch.float32, torch.float64])
@each("kind", ["repeated", "flat", "one value", "far", "fewer rows than dimensions"])
def test_of_singular_covariances_the_densities_are_the_lowest(kind: str, dtype: torch.dtype) -> None:
    points = {
        "repeated": correlated(20).repeat(10, 1),
        "flat": correlated(200, 2) @ normal(2, 16, seed=3),
        "one value": torch.full((200, 6), 1.5).double(),
        "far": 100 + correlated(200),
        "fewer rows than dimensions": correlated(30, 64),
    }[kind].to(dtype)
    found = least_likely(points, 20, RIDGE)
    assert found.dtype == dtype
    assert found.isfinite().all()
    values = np.sort(log_density(points.double().numpy(), points.double().numpy()))[:20]
    ours = np.sort(log_density(found.double().numpy(), points.double().numpy()))
    np.testing.assert_allclose(ours, values, atol=0.02 if dtype == torch.float32 else 1e-6)


def test_lowest_takes_them_of_the_mixtures_of_the_same_generator() -> None:
    queue = correlated(N)
    pool = synthesizer().expanded(queue, draws(4))
    expected = log_density(pool.numpy(), pool.numpy()).argsort()[:K]
    assert sorted(rows_of(sampled(queue, 4), pool)) == sorted(expected.tolist())


def test_none_takes_any_of_the_mixtures_each_once() -> None:
    queue, counts = correlated(N), np.zeros(40)
    for seed in range(300):
        pool = synthesizer(pool=40, take=10).expanded(queue, draws(seed))
        places = rows_of(sampled(queue, seed, estimation="none", pool=40, take=10), pool)
        assert len(set(places)) == 10
        counts[places] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_gaussian_takes_the_least_likely_of_as_many_draws_from_the_gaussian_of_the_mixtures() -> None:
    queue = correlated(N)
    ours, naive, numbers = [], [], np.random.default_rng(0)
    for seed in range(150):
        pool = synthesizer().expanded(queue, draws(seed)).numpy()
        points = sampled(queue, seed, estimation="gaussian").numpy()
        assert points.shape == (K, D)
        mean, covariance = pool.mean(0), np.cov(pool.T, bias=True) + RIDGE * np.eye(D)
        drawn = numbers.multivariate_normal(mean, covariance, M)
        values = np.sort(stats.multivariate_normal(mean, covariance).logpdf(drawn))
        found = np.sort(log_density(points, pool))
        ours.append((found[0], found[-1], np.linalg.solve(covariance, (points - mean).T).mean()))
        lowest = drawn[stats.multivariate_normal(mean, covariance).logpdf(drawn).argsort()[:K]]
        naive.append((values[0], values[K - 1], np.linalg.solve(covariance, (lowest - mean).T).mean()))
    for got, want in zip(zip(*ours, strict=True), zip(*naive, strict=True), strict=True):
        assert stats.ks_2samp(got, want).pvalue > 1e-3


# The synthesizer.


@each("dtype", [torch.float32, torch.float64])
@each("estimation", ESTIMATIONS)
@each("expansion", [True, False])
@each("shares", ["pair", "step"])
def test_points_are_of_no_class_in_the_dtype_of_the_queue_and_a_function_of_the_generator(
    shares: str, expansion: bool, estimation: str, dtype: torch.dtype
) -> None:
    queue = correlated(N).to(dtype).requires_grad_()
    options: dict[str, Any] = {"shares": shares, "expansion": expansion, "estimation": estimation}
    outliers = synthesizer(**options).sample({"feature_queue": queue}, Dimensions(5, D, D), draws())
    assert outliers.values.shape == (K, D)
    assert outliers.values.dtype == dtype
    assert not outliers.values.requires_grad
    assert outliers.source_class.tolist() == [-1] * K
    before = torch.get_rng_state()
    assert torch.equal(outliers.values, sampled(queue, 0, **options))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(outliers.values, sampled(queue, 1, **options))


def test_mixtures_lie_nearer_to_one_another_than_rows_and_the_least_likely_of_them_farther_than_any() -> None:
    queue = correlated(N)
    means = {}
    for expansion in (True, False):
        for estimation in ("lowest", "none"):
            points = sampled(queue, expansion=expansion, estimation=estimation).numpy()
            means[expansion, estimation] = log_density(points, queue.numpy()).mean()
    assert means[True, "lowest"] < means[True, "none"]
    assert means[False, "lowest"] < means[False, "none"]
    assert means[True, "none"] > means[False, "none"]


def test_its_queue_is_of_features_and_as_long_as_was_asked() -> None:
    made = synthesizer(queue_size=5)
    assert (made.space, made.at_most) == ("penultimate", (("take", "pool"),))
    ((name, make),) = made.keeps().items()
    queue = make(Dimensions(3, 4, 2))
    assert name == "feature_queue"
    assert isinstance(queue, FeatureQueue)
    assert queue.values.shape == (5, 4)
    assert not queue.ready


def test_nothing_is_drawn_before_the_queue_is_full() -> None:
    module = method(terms(cider=False, outlier_loss="outlier_exposure"), synthesizer(queue_size=20, pool=30, take=5))
    queue, written = module.memories["feature_queue"], 0
    for step in range(6):
        full = written >= 20
        assert ("outlier_exposure" in losses(module, batch(rows=4, seed=step))) == full
        written += 8
        assert int(queue.written) == written
        assert bool((queue.values != 0).any(1).all()) == (written >= 20)
