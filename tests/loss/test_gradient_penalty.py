"""The penalty on the score's gradient: hand-made energies, margins, and norms of zero."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.loss.gradient_penalty import gradient_penalty
from tests.views import assert_close, dot, normal


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


@pytest.mark.parametrize(
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
