"""NPOS's noise around boundary rows against loops written from its description."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.config import RequestError, prepare
from ood_lab.synthesizer.knn_boundary import KNNBoundary, boundary_points
from tests.cases import each

Array = np.ndarray


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=draws(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=draws(seed), dtype=torch.float64)


def clusters(classes: int, rows: int, dim: int, mean: float = 5.0, spread: float = 0.3, seed: int = 0) -> Tensor:
    """Features as after a rectifier: a large positive mean, and noise about it."""
    centres = mean + normal(classes, 1, dim, seed=seed)
    return centres + spread * normal(classes, rows, dim, seed=seed + 1)


# The description, one class and one point at a time.


def unit_naive(z: Array) -> Array:
    return z / math.sqrt(sum(x * x for x in z.tolist()))


def kth_distance(z: Array, rows: Array, k: int) -> float:
    """Of the unit vector of z to its k-th nearest among the unit vectors of the rows."""
    distances = [float(np.linalg.norm(unit_naive(z) - unit_naive(row))) for row in rows]
    return sorted(distances)[min(k, len(rows)) - 1]


def anchors_naive(rows: Array, order: Array, k: int, anchors: int) -> list[float]:
    """The k-th distances of the anchors: ties of rows leave open which row has the place, not how far it is."""
    boundary = sorted((kth_distance(row, rows, k) for row in rows), reverse=True)[: len(order)]
    return [boundary[e] for e in sorted(range(len(order)), key=lambda e: -order[e])[:anchors]]


def kept_naive(distances: list[list[float]], per_anchor: int, keeping: str) -> list[set[int]]:
    """For each anchor the noise vectors whose candidates are kept."""
    anchors, noises = len(distances), len(distances[0])
    flat = [d for row in distances for d in row]
    kept = []
    for a in range(anchors):
        if keeping == "each":
            column = flat[a * noises : (a + 1) * noises]
        else:
            column = [flat[r * anchors + a] for r in range(noises)]
        kept.append(set(sorted(range(noises), key=lambda r: -column[r])[:per_anchor]))
    return kept


def found(points: Array, rows: Array, noise: Array, deviation: float, anchors: int) -> tuple[list[int], list[set[int]]]:
    """Which row each anchor is, and which noise vectors it keeps, from the points [A K, D] of one class."""
    candidates = rows[:, None] + deviation * noise[None]
    bases, kept = [], []
    for group in points.reshape(anchors, -1, points.shape[1]):
        places = []
        for point in group:
            errors = np.abs(candidates - point).max(2)
            assert errors.min() < 1e-9
            places.append(np.unravel_index(errors.argmin(), errors.shape))
        assert len({int(n) for n, _ in places}) == 1
        assert len({int(s) for _, s in places}) == len(places)
        bases.append(int(places[0][0]))
        kept.append({int(s) for _, s in places})
    return bases, kept


def check(bank: Tensor, e: int, a: int, s: int, k: int, per_anchor: int, keeping: str, deviation: float = 0.3) -> None:
    noise, order = normal(s, bank.shape[2], seed=5), uniform(len(bank), e, seed=6)
    got = boundary_points(
        bank,
        noise_SD=noise,
        order_CE=order,
        neighbor=k,
        anchors=a,
        per_anchor=per_anchor,
        deviation=deviation,
        keeping="each" if keeping == "each" else "released",
    )
    assert got.shape == (len(bank), a * per_anchor, bank.shape[2])
    for c, rows in enumerate(bank.numpy()):
        bases, kept = found(got[c].numpy(), rows, noise.numpy(), deviation, a)
        assert len(set(bases)) == a
        own = [kth_distance(rows[n], rows, k) for n in bases]
        assert own == pytest.approx(anchors_naive(rows, order[c].numpy(), k, a), abs=1e-7)
        distances = [[kth_distance(rows[n] + deviation * x, rows, k) for x in noise.numpy()] for n in bases]
        assert kept == kept_naive(distances, per_anchor, keeping)


@each("keeping", ["each", "released"])
@each("k", [1, 2, 5, 13, 99])
def test_boundary_points_match_the_loop(k: int, keeping: str) -> None:
    check(clusters(3, 13, 5), e=6, a=3, s=8, k=k, per_anchor=3, keeping=keeping)


@each("keeping", ["each", "released"])
@each("rows", [1, 2, 3, 4, 5, 7, 8, 18])
def test_boundary_points_match_the_loop_for_any_number_of_rows(rows: int, keeping: str) -> None:
    check(clusters(2, rows, 4), e=rows, a=min(rows, 4), s=5, k=3, per_anchor=2, keeping=keeping)


@each("keeping", ["each", "released"])
@each(
    ("e", "a", "s", "per_anchor"),
    [(1, 1, 6, 2), (5, 5, 6, 1), (9, 2, 2, 2), (12, 12, 3, 2), (4, 2, 11, 10), (3, 3, 1, 1)],
)
def test_boundary_points_match_the_loop_for_any_counts(e: int, a: int, s: int, per_anchor: int, keeping: str) -> None:
    check(clusters(2, 12, 4, seed=3), e=e, a=a, s=s, k=4, per_anchor=per_anchor, keeping=keeping)


@each("keeping", ["each", "released"])
def test_boundary_points_match_the_loop_for_features_of_unequal_length(keeping: str) -> None:
    bank = clusters(3, 14, 5, mean=0.0, spread=1.0) * (0.1 + 5 * uniform(3, 14, 1, seed=8))
    check(bank, e=6, a=3, s=8, k=4, per_anchor=3, keeping=keeping)


@each("keeping", ["each", "released"])
@each("deviation", [0.01, 0.1, 3.0])
def test_boundary_points_match_the_loop_for_any_deviation(deviation: float, keeping: str) -> None:
    check(clusters(2, 12, 5), e=5, a=2, s=8, k=4, per_anchor=3, keeping=keeping, deviation=deviation)


def distances_by_anchor(keeping: Any) -> tuple[Tensor, Array]:
    bank, per_anchor = clusters(3, 30, 6), 4
    points = boundary_points(
        bank,
        noise_SD=normal(20, 6, seed=5),
        order_CE=uniform(3, 8, seed=6),
        neighbor=5,
        anchors=3,
        per_anchor=per_anchor,
        deviation=0.3,
        keeping=keeping,
    )
    distances = [
        [kth_distance(p, rows.numpy(), 5) for p in own.numpy()] for own, rows in zip(points, bank, strict=True)
    ]
    return points, np.array(distances).reshape(3, 3, per_anchor)


def test_released_keeps_other_points_that_are_never_farther_in_the_mean() -> None:
    each, far = distances_by_anchor("each")
    released, near = distances_by_anchor("released")
    assert not torch.equal(each.sort(1).values, released.sort(1).values)
    assert (far.mean(2) >= near.mean(2) - 1e-12).all()
    assert far.mean() > 1.05 * near.mean()


def test_of_one_anchor_released_keeps_what_each_keeps() -> None:
    bank = clusters(3, 12, 5)
    given: dict[str, Any] = {"noise_SD": normal(9, 5, seed=5), "order_CE": uniform(3, 4, seed=6), "neighbor": 4}
    each, released = (
        boundary_points(bank, anchors=1, per_anchor=3, deviation=0.3, keeping=keeping, **given)
        for keeping in ("each", "released")
    )
    torch.testing.assert_close(each.sort(1).values, released.sort(1).values)


def test_points_of_a_class_do_not_depend_on_the_other_classes() -> None:
    bank, noise, order = clusters(4, 13, 5), normal(8, 5, seed=5), uniform(4, 6, seed=6)
    given: dict[str, Any] = {"noise_SD": noise, "neighbor": 4, "anchors": 3, "per_anchor": 3, "deviation": 0.3}
    together = boundary_points(bank, order_CE=order, **given)
    for c in range(4):
        alone = boundary_points(bank[c : c + 1], order_CE=order[c : c + 1], **given)
        torch.testing.assert_close(together[c : c + 1], alone)


# The synthesizer.


def sampler(**changes: Any) -> KNNBoundary:
    options: dict[str, Any] = {
        "neighbor": 5,
        "boundary": 8,
        "anchors": 3,
        "candidates": 10,
        "per_anchor": 4,
        "deviation": 0.1,
        "keeping": "each",
        "bank_size": 20,
    }
    return KNNBoundary(**{**options, **changes})


@each("dtype", [torch.float32, torch.float64])
@each("keeping", ["each", "released"])
def test_draw_gives_points_for_each_class_in_the_dtype_of_the_bank(keeping: str, dtype: torch.dtype) -> None:
    bank = clusters(4, 20, 6).to(dtype)
    outliers = sampler(keeping=keeping).draw(bank, draws())
    assert outliers.values.shape == (4 * 3 * 4, 6)
    assert outliers.values.dtype == dtype
    assert outliers.source_class.tolist() == [0] * 12 + [1] * 12 + [2] * 12 + [3] * 12
    assert outliers.values.isfinite().all()


def test_every_point_is_a_row_of_its_class_and_noise() -> None:
    bank = clusters(4, 20, 6, mean=100.0, spread=5.0)
    outliers = sampler(deviation=0.01).draw(bank, draws())
    for point, c in zip(outliers.values, outliers.source_class.tolist(), strict=True):
        assert 1e-4 < (bank[c] - point).norm(dim=1).min() < 0.1


def test_anchors_of_a_class_are_different_boundary_rows_and_all_of_these_come_up() -> None:
    bank = clusters(1, 20, 6, spread=1.0)
    far = [kth_distance(row.numpy(), bank[0].numpy(), 5) for row in bank[0]]
    used: list[int] = []
    for seed in range(40):
        points = sampler(deviation=1e-4, boundary=4, anchors=2, per_anchor=1).draw(bank, draws(seed)).values
        rows = torch.cdist(points, bank[0]).argmin(1).tolist()
        assert len(set(rows)) == 2
        used += rows
    boundary = sorted(range(20), key=lambda n: -far[n])[:4]
    assert far[boundary[3]] > 1.001 * sorted(far)[-5]
    assert sorted(set(used)) == sorted(boundary)
    assert min(used.count(n) for n in boundary) > 8


def test_noise_has_the_deviation_in_each_coordinate() -> None:
    bank = clusters(1, 5, 64, mean=100.0, spread=20.0)
    changes = {"boundary": 1, "anchors": 1, "candidates": 500, "per_anchor": 500, "deviation": 0.2}
    points = sampler(**changes).draw(bank, draws()).values
    anchor = bank[0][torch.cdist(points[:1], bank[0]).argmin()]
    moved = points - anchor
    assert float(moved.std()) == pytest.approx(0.2, rel=0.03)
    assert float(moved.mean()) == pytest.approx(0, abs=0.006)


def test_boundary_is_clipped_to_the_rows_of_the_bank() -> None:
    bank = clusters(4, 20, 6)
    clipped, exact, fewer = (sampler(boundary=e).draw(bank, draws()).values for e in (10**6, 20, 8))
    assert torch.equal(clipped, exact)
    assert not torch.equal(clipped, fewer)


def test_neighbor_is_clipped_to_the_rows_of_a_class() -> None:
    bank = clusters(4, 20, 6)
    clipped, exact, nearer = (sampler(neighbor=k).draw(bank, draws()).values for k in (10**6, 20, 2))
    assert torch.equal(clipped, exact)
    assert not torch.equal(clipped, nearer)


def test_more_anchors_than_boundary_rows_are_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match=r"anchors=9: expected at most 8, the value of synthesizer.boundary"):
        prepare(["method=npos", "synthesizer.anchors=9", "synthesizer.boundary=8"])
    with pytest.raises(RequestError, match=r"anchors=21: expected at most 20, the value of synthesizer.bank_size"):
        prepare(["method=npos", "synthesizer.anchors=21", "synthesizer.bank_size=20"])
    assert len(sampler(anchors=8).draw(clusters(4, 20, 6), draws()).values) == 4 * 8 * 4


def test_more_points_than_candidates_are_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match=r"per_anchor=11: expected at most 10, the value of synthesizer.candidates"):
        prepare(["method=npos", "synthesizer.per_anchor=11", "synthesizer.candidates=10"])
    assert len(sampler(per_anchor=10).draw(clusters(4, 20, 6), draws()).values) == 4 * 3 * 10


def test_it_keeps_penultimate_features() -> None:
    assert sampler().space == "penultimate"
    assert list(sampler().keeps()) == ["feature_bank"]


def test_every_option_reaches_the_points() -> None:
    bank = clusters(4, 20, 6, spread=1.0)
    base = sampler().draw(bank, draws()).values
    for change in (
        {"neighbor": 15},
        {"boundary": 3},
        {"anchors": 2},
        {"candidates": 11},
        {"per_anchor": 3},
        {"deviation": 0.11},
        {"keeping": "released"},
    ):
        assert not torch.equal(base, sampler(**change).draw(bank, draws()).values), change


@each("keeping", ["each", "released"])
@each("kind", ["one row", "zeros", "a zero row", "rows on one ray"])
def test_degenerate_features_give_finite_points(kind: str, keeping: str) -> None:
    bank = clusters(3, 20, 6).float()
    if kind == "one row":
        bank = bank[:1, :1].expand(3, 20, 6)
    elif kind == "zeros":
        bank = torch.zeros_like(bank)
    elif kind == "a zero row":
        bank[1, 4] = 0
    else:
        bank = bank[:, :1] * torch.linspace(0.5, 2, 20)[:, None]
    assert sampler(keeping=keeping).draw(bank, draws()).values.isfinite().all()


def mean_distance(points: Tensor, bank: Tensor, k: int) -> float:
    """The mean distance of points [C, P, D] to their k-th nearest of their class, in float64."""
    z, rows = (torch.nn.functional.normalize(x.double(), dim=2) for x in (points, bank))
    return float(torch.cdist(z, rows, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(k, dim=2).values.mean())


def test_points_of_a_float32_bank_lie_as_far_out_as_those_of_float64() -> None:
    bank, changes = clusters(3, 200, 32, spread=0.1), {"neighbor": 50, "candidates": 60, "bank_size": 200}
    single = sampler(**changes).draw(bank.float(), draws()).values.view(3, -1, 32)
    double = sampler(**changes).draw(bank.float().double(), draws()).values.view(3, -1, 32)
    assert mean_distance(single, bank, 50) == pytest.approx(mean_distance(double, bank, 50), rel=1e-3)


def test_points_lie_farther_out_than_95_percent_of_the_rows_of_their_class() -> None:
    bank, k = clusters(3, 200, 16), 20
    changes = {"neighbor": k, "boundary": 10, "candidates": 60, "per_anchor": 10, "bank_size": 200}
    points = sampler(**changes).draw(bank, draws()).values.view(3, -1, 16)
    for own, rows in zip(points.numpy(), bank.numpy(), strict=True):
        inside = np.array([kth_distance(row, rows, k) for row in rows[:100]])
        outside = [kth_distance(point, rows, k) for point in own[::5]]
        assert min(outside) > np.quantile(inside, 0.95)
