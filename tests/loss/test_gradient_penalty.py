"""The penalty on the score's gradient: hand-made energies, margins, and norms of zero."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.loss.gradient_penalty import gradient_penalty
from tests.cases import each
from tests.views import assert_close, differences, dot, normal


def linear(images: Tensor, slopes: Tensor) -> Tensor:
    """Energies whose gradient is known: the row of `slopes`."""
    return (images * slopes).flatten(1).sum(1)


def quadratic(images: Tensor, scale: Tensor) -> Tensor:
    """Energies with the gradient scale * x."""
    return 0.5 * (scale * images.square()).flatten(1).sum(1)


def test_it_is_the_mean_norm_over_all_images_of_each_side() -> None:
    ids, outliers = normal(4, 3, 2, 2), normal(3, 3, 2, 2, seed=1)
    slopes, others = normal(4, 3, 2, 2, seed=2), normal(3, 3, 2, 2, seed=3)
    id_energy = [dot(x, s) for x, s in zip(ids.flatten(1).tolist(), slopes.flatten(1).tolist(), strict=True)]
    ood_energy = [dot(x, s) for x, s in zip(outliers.flatten(1).tolist(), others.flatten(1).tolist(), strict=True)]
    m_in, m_out = sum(sorted(id_energy)[1:3]) / 2, sum(sorted(ood_energy)[1:3]) / 2
    expected = 0.0
    for energy, slope in zip(id_energy, slopes.flatten(1).tolist(), strict=True):
        expected += math.sqrt(dot(slope, slope)) / 4 if energy <= m_in else 0
    for energy, slope in zip(ood_energy, others.flatten(1).tolist(), strict=True):
        expected += math.sqrt(dot(slope, slope)) / 3 if energy >= m_out else 0
    ids.requires_grad_()
    outliers.requires_grad_()
    got = gradient_penalty(linear(ids, slopes), ids, linear(outliers, others), outliers, m_in, m_out)
    assert got.item() == pytest.approx(expected, abs=1e-10)


@each(
    ("m_in", "m_out", "expected"),
    [(2.0, 9.0, 5.0), (1.999, 9.0, 0.0), (0.0, 2.0, 5.0), (0.0, 2.001, 0.0), (2.0, 2.0, 10.0)],
)
def test_the_margins_themselves_count(m_in: float, m_out: float, expected: float) -> None:
    ids, outliers = (torch.tensor([[2.0, -1.0]], dtype=torch.float64).requires_grad_() for _ in range(2))
    slope = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    got = gradient_penalty(linear(ids, slope), ids, linear(outliers, slope), outliers, m_in, m_out)
    assert got.item() == expected


def test_its_gradient_is_that_of_the_norm() -> None:
    ids, outliers = normal(3, 5).requires_grad_(), normal(2, 5, seed=1).requires_grad_()
    scale = normal(5, seed=2).requires_grad_()
    gradient_penalty(quadratic(ids, scale), ids, quadratic(outliers, scale), outliers, math.inf, -math.inf).backward()
    expected = [0.0] * 5
    for rows in (ids.tolist(), outliers.tolist()):
        for row in rows:
            slope = [s * x for s, x in zip(scale.tolist(), row, strict=True)]
            norm = math.sqrt(dot(slope, slope))
            expected = [e + g * x / norm / len(rows) for e, g, x in zip(expected, slope, row, strict=True)]
    assert_close(scale.grad, torch.tensor(expected, dtype=torch.float64), 1e-10)


def test_a_gradient_of_zero_beside_others_adds_nothing_and_spoils_nothing() -> None:
    found = []
    for first in (0.0, 1.0):
        ids, outliers = normal(3, 5), normal(2, 5, seed=1).requires_grad_()
        ids[0] *= first
        scale, ids = normal(5, seed=2).requires_grad_(), ids.requires_grad_()
        keep = torch.tensor([first, 1.0, 1.0], dtype=torch.float64)
        id_energy = quadratic(ids, scale) * keep
        penalty = gradient_penalty(id_energy, ids, quadratic(outliers, scale), outliers, math.inf, math.inf)
        penalty.backward()
        assert scale.grad.isfinite().all()
        found.append((penalty.detach(), scale.grad))
    slope = scale.detach() * normal(3, 5)[0]
    torch.testing.assert_close(found[1][0] - found[0][0], slope.norm() / 3)
    torch.testing.assert_close(found[1][1] - found[0][1], slope * normal(3, 5)[0] / slope.norm() / 3)


def test_where_nothing_counts_it_is_zero_with_a_gradient_of_zero() -> None:
    ids, outliers = normal(3, 5).requires_grad_(), normal(2, 5, seed=1).requires_grad_()
    scale = normal(5, seed=2).requires_grad_()
    penalty = gradient_penalty(quadratic(ids, scale), ids, quadratic(outliers, scale), outliers, -math.inf, math.inf)
    penalty.backward()
    assert penalty.item() == 0
    assert scale.grad.tolist() == [0.0] * 5


def coupled(rows: list, others: list, factor: float) -> list[float]:
    """Energies that depend on all rows of both sides: sum_d cos(x_d) + factor * x_d * (the mean of all rows)_d."""
    everything = [*rows, *others]
    mean = [sum(row[d] for row in everything) / len(everything) for d in range(len(rows[0]))]
    return [sum(math.cos(x) + factor * x * m for x, m in zip(row, mean, strict=True)) for row in rows]


def coupled_tensors(rows: Tensor, others: Tensor, factor: Tensor | float) -> Tensor:
    mean = torch.cat([rows, others]).mean(0)
    return (rows.cos() + factor * rows * mean).sum(1)


def naive(ids: list, outliers: list, m_in: float, m_out: float, factor: float) -> float:
    """The norms of the rows' gradients of mean_in S 1[S <= m_in] + mean_out S 1[S >= m_out], by differences."""

    def counted(of_id: list, of_outliers: list) -> float:
        id_energy, ood_energy = coupled(of_id, of_outliers, factor), coupled(of_outliers, of_id, factor)
        total = sum(s for s in id_energy if s <= m_in) / len(id_energy)
        return total + sum(s for s in ood_energy if s >= m_out) / len(ood_energy)

    of_id = differences(lambda x: counted(x, outliers), torch.tensor(ids, dtype=torch.float64))
    of_outliers = differences(lambda x: counted(ids, x), torch.tensor(outliers, dtype=torch.float64))
    return sum(math.sqrt(dot(row, row)) for row in (*of_id.tolist(), *of_outliers.tolist()))


SIDES = [(5, 3), (2, 6), (1, 1)]


def between(values: list[float]) -> float:
    """A margin that some values are below and some above, where there are several."""
    values = sorted(values)
    return (values[len(values) // 2 - 1] + values[len(values) // 2]) / 2 if len(values) > 1 else values[0] + 0.1


@each("some", [True, False])
@each(("rows", "others"), SIDES)
def test_where_rows_depend_on_one_another_each_side_is_averaged_before_the_differentiation(
    rows: int, others: int, some: bool
) -> None:
    ids, outliers = normal(rows, 4).requires_grad_(), normal(others, 4, seed=1).requires_grad_()
    id_energy, ood_energy = coupled_tensors(ids, outliers, 0.7), coupled_tensors(outliers, ids, 0.7)
    margins = (between(id_energy.tolist()), between(ood_energy.tolist())) if some else (math.inf, -math.inf)
    found = gradient_penalty(id_energy, ids, ood_energy, outliers, *margins).item()
    expected = naive(ids.tolist(), outliers.tolist(), *margins, 0.7)
    assert expected > 0.1
    assert found == pytest.approx(expected, abs=1e-8)


def test_where_rows_depend_on_one_another_its_gradient_matches_finite_differences() -> None:
    ids, outliers = normal(5, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    factor = torch.tensor(0.7, dtype=torch.float64).requires_grad_()
    id_energy, ood_energy = coupled_tensors(ids, outliers, factor), coupled_tensors(outliers, ids, factor)
    margins = (between(id_energy.tolist()), between(ood_energy.tolist()))
    gradient_penalty(id_energy, ids, ood_energy, outliers, *margins).backward()
    there, back = (naive(ids.tolist(), outliers.tolist(), *margins, 0.7 + step) for step in (1e-4, -1e-4))
    assert abs(there - back) > 1e-5
    assert factor.grad.item() == pytest.approx((there - back) / 2e-4, abs=1e-5)


def test_a_row_that_does_not_count_is_penalised_for_what_it_does_to_one_that_does() -> None:
    ids, outliers = normal(2, 4).requires_grad_(), normal(1, 4, seed=1).requires_grad_()
    id_energy = torch.stack([(ids[0] * ids[1]).sum(), ids[1].sum() * 0 + 9])
    found = gradient_penalty(id_energy, ids, outliers.sum(1), outliers, 8.0, math.inf)
    expected = (ids[0].norm() + ids[1].norm()) / 2
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
