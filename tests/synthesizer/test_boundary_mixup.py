"""Mixtures of VOS's points of two classes against loops, and against VOS's points themselves."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ood_lab.random import beta
from ood_lab.synthesizer.boundary_mixup import BoundaryMixup, mix_classes
from ood_lab.synthesizer.gaussian_tail import GaussianTail
from tests.cases import each

Array = np.ndarray
TAIL: dict[str, Any] = {"per_class": 3, "draws": 100, "ridge": 1e-4, "bank_size": 20}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=draws(seed), dtype=torch.float64)


def clusters(classes: int, rows: int, dim: int, apart: float = 5.0, seed: int = 0) -> Tensor:
    return apart * normal(classes, 1, dim, seed=seed) + normal(classes, rows, dim, seed=seed + 1)


def sampler(**changes: Any) -> BoundaryMixup:
    return BoundaryMixup(**{"beta": 1.0, **TAIL, **changes})


def mix_naive(points: Array, shift: Array, partner: Array, share: Array) -> Array:
    classes, count, _ = points.shape
    out = np.zeros_like(points)
    for c in range(classes):
        for k in range(count):
            other = points[(c + shift[c, k]) % classes, partner[c, k]]
            out[c, k] = share[c, k] * points[c, k] + (1 - share[c, k]) * other
    return out


def shares_and_partners(points: Array, mixtures: Array) -> list[tuple[float, int, int]]:
    """For each of [C, K, D] mixtures the share of its own point, and the class and place of the other that fits."""
    classes, count, _ = points.shape
    found = []
    for c in range(classes):
        for k in range(count):
            fits = []
            for other in range(classes):
                for j in range(count):
                    if (other, j) == (c, k):
                        continue
                    line = points[c, k] - points[other, j]
                    share = float((mixtures[c, k] - points[other, j]) @ line / (line @ line))
                    error = np.abs(points[other, j] + share * line - mixtures[c, k]).max()
                    fits.append((float(error), share, other, j))
            error, share, other, j = min(fits)
            assert error < 1e-4
            found.append((share, other, j))
    return found


# Mixing.


@each(("classes", "count"), [(2, 1), (3, 4), (5, 2)])
def test_mix_classes_matches_the_loop(classes: int, count: int) -> None:
    points, generator = normal(classes, count, 6), draws(1)
    shift = torch.randint(1, classes, (classes, count), generator=generator)
    partner = torch.randint(0, count, (classes, count), generator=generator)
    share = torch.rand((classes, count), generator=generator, dtype=torch.float64)
    got = mix_classes(points, shift_CK=shift, partner_CK=partner, share_CK=share)
    expected = mix_naive(points.numpy(), shift.numpy(), partner.numpy(), share.numpy())
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-14)


def test_share_one_is_the_own_point_and_zero_the_partner() -> None:
    points = normal(3, 2, 4)
    places = {"shift_CK": torch.tensor([[1, 2], [2, 1], [1, 1]]), "partner_CK": torch.tensor([[0, 1], [1, 1], [0, 0]])}
    own = mix_classes(points, share_CK=torch.ones(3, 2, dtype=torch.float64), **places)
    other = mix_classes(points, share_CK=torch.zeros(3, 2, dtype=torch.float64), **places)
    torch.testing.assert_close(own, points)
    torch.testing.assert_close(other[0, 1], points[2, 1])
    torch.testing.assert_close(other[1, 0], points[0, 1])
    torch.testing.assert_close(other[2, 1], points[0, 0])


# Shares.


@each("a", [0.01, 0.1, 0.5, 1.0, 2.0, 10.0, 1000.0])
def test_shares_have_the_mean_the_variance_and_the_law_of_beta(a: float) -> None:
    n = 40000
    share = beta(a, a, (n // 4, 4), draws(3))
    assert share.shape == (n // 4, 4)
    assert ((share >= 0) & (share <= 1)).all()
    variance = 1 / (4 * (2 * a + 1))
    assert float(share.mean()) == pytest.approx(0.5, abs=5 * math.sqrt(variance / n))
    assert float(share.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    if a >= 0.5:
        assert stats.kstest(share.flatten().numpy(), stats.beta(a, a).cdf).pvalue > 1e-3


def test_shares_of_different_points_are_independent() -> None:
    share = beta(1.0, 1.0, (20000, 3), draws(3))
    assert np.abs(np.corrcoef(share.numpy().T) - np.eye(3)).max() < 5 / math.sqrt(20000)


def test_a_whole_number_is_a_beta() -> None:
    bank = clusters(5, 20, 6).float()
    assert torch.equal(sampler(beta=2).draw(bank, draws()).values, sampler(beta=2.0).draw(bank, draws()).values)


# The synthesizer.


@each("dtype", [torch.float32, torch.float64])
def test_draw_gives_mixtures_for_each_class_in_the_dtype_of_the_bank(dtype: torch.dtype) -> None:
    outliers = sampler().draw(clusters(5, 20, 6).to(dtype), draws())
    assert outliers.values.shape == (15, 6)
    assert outliers.values.dtype == dtype
    assert outliers.source_class.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


@each(("classes", "per_class"), [(2, 1), (5, 3), (3, 1)])
def test_every_outlier_is_a_mixture_of_tail_points_of_two_classes(classes: int, per_class: int) -> None:
    bank = clusters(classes, 20, 6)
    tail = GaussianTail(**{**TAIL, "per_class": per_class}).tail(bank, draws(4)).numpy()
    mixtures = sampler(per_class=per_class).draw(bank, draws(4)).values.view(classes, per_class, 6).numpy()
    found = shares_and_partners(tail, mixtures)
    for i, (share, other, _) in enumerate(found):
        assert 0 <= share <= 1
        assert other != i // per_class


def test_every_other_class_and_every_point_of_it_can_be_the_partner_and_shares_follow_beta() -> None:
    bank = clusters(4, 20, 6)
    tail = GaussianTail(**{**TAIL, "per_class": 60}).tail(bank, draws(4)).numpy()
    mixtures = sampler(per_class=60, beta=3.0).draw(bank, draws(4)).values.view(4, 60, 6).numpy()
    found = shares_and_partners(tail, mixtures)
    for c in range(4):
        others = [other for _, other, _ in found[60 * c : 60 * (c + 1)]]
        assert sorted(set(others)) == [o for o in range(4) if o != c]
        assert min(others.count(o) for o in set(others)) > 7
    places = np.bincount([j for _, _, j in found], minlength=60)
    assert places.max() < 16
    assert (places > 0).sum() > 50
    assert stats.kstest([share for share, _, _ in found], stats.beta(3, 3).cdf).pvalue > 1e-3


def test_beta_reaches_the_points() -> None:
    bank = clusters(5, 20, 6)
    assert not torch.equal(sampler(beta=5.0).draw(bank, draws()).values, sampler().draw(bank, draws()).values)


def test_collapsed_features_give_finite_mixtures() -> None:
    assert sampler().draw(torch.ones(3, 20, 6), draws()).values.isfinite().all()


# Not VOS under another name.


def to_segments(points: Array, means: Array) -> Array:
    """The distance of each point to the nearest segment between two class means."""
    nearest = np.full(len(points), np.inf)
    for u, v in combinations(range(len(means)), 2):
        for i, point in enumerate(points):
            line = means[v] - means[u]
            place = min(1.0, max(0.0, float((point - means[u]) @ line / (line @ line))))
            nearest[i] = min(nearest[i], np.linalg.norm(point - means[u] - place * line))
    return nearest


def to_means(points: Array, bank: Array) -> Array:
    """The Mahalanobis distance of each point to the nearest class mean."""
    means = bank.mean(1)
    centred = (bank - means[:, None]).reshape(-1, bank.shape[2])
    inverse = np.linalg.inv(centred.T @ centred / len(centred))
    return np.array([min(math.sqrt((p - m) @ inverse @ (p - m)) for m in means) for p in points])


@each("per_class", [1, 20])
def test_points_are_not_vos_points_of_the_same_generator(per_class: int) -> None:
    bank = clusters(5, 20, 6)
    vos = GaussianTail(**{**TAIL, "per_class": per_class}).draw(bank, draws()).values
    mixed = sampler(per_class=per_class).draw(bank, draws()).values
    assert mixed.shape == vos.shape
    assert torch.cdist(mixed, vos).min() > 1e-3
    assert ((mixed - vos).norm(dim=1) > 0.1).double().mean() > 0.8


def test_mixtures_lie_between_separate_classes_where_vos_points_lie_around_them() -> None:
    bank = clusters(5, 100, 16, apart=20.0)
    changes: dict[str, Any] = {"per_class": 20, "draws": 10000}
    vos = GaussianTail(**{**TAIL, **changes}).draw(bank, draws()).values.numpy()
    mixed = sampler(**changes).draw(bank, draws()).values.numpy()
    assert to_segments(mixed, bank.mean(1).numpy()).mean() < 0.9 * to_segments(vos, bank.mean(1).numpy()).mean()
    vos_radii, mixed_radii = to_means(vos, bank.numpy()), to_means(mixed, bank.numpy())
    assert vos_radii.max() < 10
    assert np.median(mixed_radii) > 3 * vos_radii.max()
    assert (mixed_radii > vos_radii.max()).mean() > 0.8
