"""The divergence of two sets of energies against loops, integrals over densities, and finite differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from ood_lab.loss.jensen_shannon import FLOOR, Middle, jensen_shannon
from tests.cases import each
from tests.views import assert_close, differences, normal

MIDDLES: tuple[Middle, ...] = ("moments", "average", "quarter")
PRINTED = [False, True]
SIZES = [(6, 6), (128, 128), (3, 11)]


def energies(rows: int, outliers: int, apart: float = 1.5) -> tuple[Tensor, Tensor]:
    """Of different mean and spread."""
    return 1.7 * normal(rows) - 2, 0.6 * normal(outliers, seed=1) - 2 + apart


def mean_and_deviation(values: list, printed: bool) -> tuple[float, float]:
    """Eqs. 8 and 9, the mean squared deviation taken as s^2, or as s where it is read as printed."""
    mean = sum(values) / len(values)
    squares = sum((x - mean) ** 2 for x in values) / len(values) + FLOOR
    return mean, squares if printed else math.sqrt(squares)


def middle_deviation(p: tuple[float, float], q: tuple[float, float], middle: str) -> float:
    """s_M. The variance of the mixture by its second moment."""
    (m_p, s_p), (m_q, s_q) = p, q
    if middle == "moments":
        second = (s_p**2 + m_p**2) / 2 + (s_q**2 + m_q**2) / 2
        return math.sqrt(second - ((m_p + m_q) / 2) ** 2)
    return math.sqrt((s_p**2 + s_q**2) / (2 if middle == "average" else 4))


def divergence(p: tuple[float, float], m: tuple[float, float]) -> float:
    """Eq. 11."""
    return math.log(m[1] / p[1]) + (p[1] ** 2 + (p[0] - m[0]) ** 2) / (2 * m[1] ** 2) - 1 / 2


def naive(of_id: list, of_outliers: list, middle: str, printed: bool = False) -> float:
    """Eq. 10."""
    p, q = mean_and_deviation(of_id, printed), mean_and_deviation(of_outliers, printed)
    m = (p[0] + q[0]) / 2, middle_deviation(p, q, middle)
    return (divergence(p, m) + divergence(q, m)) / 2


def integral(of_id: list, of_outliers: list, middle: str) -> float:
    """Eq. 10 with both KL terms integrated over the densities."""
    p, q = mean_and_deviation(of_id, False), mean_and_deviation(of_outliers, False)
    laws = [stats.norm(*p), stats.norm(*q)]
    between = stats.norm((p[0] + q[0]) / 2, middle_deviation(p, q, middle))

    def of(law: Any) -> float:
        ends = law.mean() - 12 * law.std(), law.mean() + 12 * law.std()
        return integrate.quad(lambda x: law.pdf(x) * (law.logpdf(x) - between.logpdf(x)), *ends, limit=200)[0]

    return sum(of(law) for law in laws) / 2


@each("printed", PRINTED)
@each("middle", MIDDLES)
@each(("rows", "outliers"), SIZES)
@each("apart", [0.0, 1.5, -8.0, 300.0])
def test_it_is_eqs_8_to_11(rows: int, outliers: int, middle: Middle, printed: bool, apart: float) -> None:
    given = energies(rows, outliers, apart)
    expected = naive(*(x.tolist() for x in given), middle, printed)
    assert jensen_shannon(*given, middle, printed).item() == pytest.approx(expected, rel=1e-9)


@each("middle", MIDDLES)
@each("apart", [0.0, 1.5, -4.0])
def test_both_terms_are_integrals_over_normal_densities(middle: Middle, apart: float) -> None:
    given = energies(40, 30, apart)
    expected = integral(*(x.tolist() for x in given), middle)
    assert jensen_shannon(*given, middle).item() == pytest.approx(expected, abs=1e-7)


def test_moments_are_those_of_many_draws_from_both_and_the_default() -> None:
    given = energies(500, 500, 2.0)
    p, q = (mean_and_deviation(x.tolist(), False) for x in given)
    drawn = np.concatenate([np.random.default_rng(seed).normal(*law, 400_000) for seed, law in enumerate((p, q))])
    m = drawn.mean(), drawn.std()
    expected = (divergence(p, m) + divergence(q, m)) / 2
    assert jensen_shannon(*given).item() == pytest.approx(expected, abs=2e-3)


def test_moments_are_the_nearest_of_all_normal_middles() -> None:
    given = energies(60, 60, 2.0)
    p, q = (mean_and_deviation(x.tolist(), False) for x in given)
    best = jensen_shannon(*given).item()
    m = (p[0] + q[0]) / 2, middle_deviation(p, q, "moments")
    for shift in (-0.1, 0.0, 0.1):
        for stretch in (0.9, 1.0, 1.1):
            other = m[0] + shift, m[1] * stretch
            assert (divergence(p, other) + divergence(q, other)) / 2 >= best - 1e-12


@each("printed", PRINTED)
@each("middle", MIDDLES)
def test_gradients_are_those_of_the_loops(middle: Middle, printed: bool) -> None:
    of_id, of_outliers = (x.requires_grad_() for x in energies(6, 5))
    jensen_shannon(of_id, of_outliers, middle, printed).backward()
    assert_close(of_id.grad, differences(lambda x: naive(x, of_outliers.tolist(), middle, printed), of_id))
    assert_close(of_outliers.grad, differences(lambda x: naive(of_id.tolist(), x, middle, printed), of_outliers))
    of = lambda x, y: jensen_shannon(x, y, middle, printed)  # noqa: E731
    assert torch.autograd.gradcheck(of, (of_id, of_outliers), atol=1e-6)


@each("middle", MIDDLES)
def test_sides_may_change_places_and_shifts_do_not_matter(middle: Middle) -> None:
    of_id, of_outliers = energies(9, 14)
    found = jensen_shannon(of_id, of_outliers, middle)
    changes: list[Callable[[Tensor], Tensor]] = [lambda x: x + 50, lambda x: -x, lambda x: x.flip(0)]
    for change in changes:
        torch.testing.assert_close(jensen_shannon(change(of_id), change(of_outliers), middle), found)
    torch.testing.assert_close(jensen_shannon(of_outliers, of_id, middle), found)


@each("middle", ["moments", "average"])
def test_equal_energies_have_no_divergence_and_others_more(middle: Middle) -> None:
    of_id, of_outliers = energies(30, 30)
    assert jensen_shannon(of_id, of_id, middle).item() == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(of_id, of_outliers, middle) > 0.01


def test_of_equal_energies_a_quarter_is_half_minus_half_a_log_of_two() -> None:
    of_id = normal(30)
    assert jensen_shannon(of_id, of_id, "quarter").item() == pytest.approx((1 - math.log(2)) / 2, abs=1e-9)


def test_with_moments_it_grows_as_the_logarithm_of_the_gap_and_with_the_average_as_its_square() -> None:
    gaps = (1e3, 1e4, 1e5)
    moments, average = ([jensen_shannon(*energies(20, 20, g), m).item() for g in gaps] for m in ("moments", "average"))
    for found in np.diff(moments):
        assert found == pytest.approx(math.log(10), abs=1e-3)
    for less, more in itertools.pairwise(average):
        assert more / less == pytest.approx(100, rel=0.02)


@each("printed", PRINTED)
@each("middle", MIDDLES)
@each("of_id", [torch.zeros(8), torch.full((8,), -30.0), torch.randn(8, generator=torch.Generator().manual_seed(0))])
@each("of_outliers", [torch.zeros(5), torch.zeros(1), torch.full((5,), 40.0)])
def test_energies_that_are_all_equal_give_finite_values_and_gradients(
    of_id: Tensor, of_outliers: Tensor, middle: Middle, printed: bool
) -> None:
    given = [x.clone().requires_grad_() for x in (of_id, of_outliers)]
    found = jensen_shannon(*given, middle, printed)
    found.backward()
    assert found.dtype == torch.float32
    assert found.isfinite()
    for x in given:
        assert x.grad is not None
        assert x.grad.isfinite().all()
