"""The energy of logits and the margins set for it: loops, gradients, and which rows count."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.loss.energy import energy, energy_margin
from tests.cases import each
from tests.views import assert_close, differences, normal

ID, OOD = [-3.0, -1.0, 0.5, 2.0, 4.0], [-2.5, 0.25, 3.0]


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def naive_energy(row: list[float]) -> float:
    return -math.log(sum(math.exp(x) for x in row))


def naive(of_id: list[float], of_outliers: list[float], m_in: float, m_out: float) -> float:
    """GReg, Eq. 1."""
    id_side = sum((s - m_in) ** 2 for s in of_id if s >= m_in) / len(of_id)
    outlier_side = sum((m_out - s) ** 2 for s in of_outliers if s <= m_out) / len(of_outliers)
    return id_side + outlier_side


@each("classes", [1, 3, 11])
def test_the_energy_matches_the_loop(classes: int) -> None:
    logits = 3 * normal(6, classes)
    assert energy(logits).tolist() == pytest.approx([naive_energy(row) for row in logits.tolist()], abs=1e-12)


def test_the_gradient_of_the_energy_is_minus_the_prediction() -> None:
    logits, towards = normal(4, 3).requires_grad_(), normal(4, seed=1).tolist()
    (energy(logits) * tensor(towards)).sum().backward()

    def score(rows: list) -> float:
        return sum(w * naive_energy(row) for w, row in zip(towards, rows, strict=True))

    assert_close(logits.grad, differences(score, logits))
    assert_close(logits.grad, -tensor(towards)[:, None] * logits.detach().softmax(1), 1e-12)


def test_the_energy_is_exact_for_huge_logits_and_lower_where_one_is_large() -> None:
    found = energy(torch.tensor([[3e4, 0.0], [-3e4, -3e4]])).tolist()
    assert found == pytest.approx([-3e4, 3e4 - math.log(2)])
    assert energy(torch.tensor([[9.0, 0.0]])) < energy(torch.tensor([[1.0, 0.0]]))


@each(("m_in", "m_out"), [(-0.5, 1.0), (1.0, 1.0), (-2.0, -2.0), (-25.0, 9.0)])
@each(("rows", "outliers"), [(5, 3), (1, 3), (5, 1)])
def test_the_margins_match_the_loop(rows: int, outliers: int, m_in: float, m_out: float) -> None:
    of_id, of_outliers = ID[:rows], OOD[:outliers]
    found = energy_margin(tensor(of_id), tensor(of_outliers), m_in, m_out).item()
    assert found == pytest.approx(naive(of_id, of_outliers, m_in, m_out), abs=1e-12)


def test_each_side_is_a_mean_over_all_of_its_rows_by_itself() -> None:
    assert energy_margin(tensor([3.0, 0.0, 0.0, 0.0]), tensor([9.0]), 1.0, 2.0).item() == 1.0
    assert energy_margin(tensor([0.0]), tensor([-1.0, 9.0, 9.0]), 1.0, 2.0).item() == 3.0
    assert energy_margin(tensor([3.0]), tensor([-1.0]), 1.0, 2.0).item() == 13.0


def test_rows_on_the_right_side_of_their_margin_and_on_it_count_nothing() -> None:
    of_id, of_outliers = tensor([-30.0, 1.0]).requires_grad_(), tensor([2.0, 30.0]).requires_grad_()
    found = energy_margin(of_id, of_outliers, 1.0, 2.0)
    found.backward()
    assert found.item() == 0
    assert of_id.grad.tolist() == of_outliers.grad.tolist() == [0.0, 0.0]


def test_the_gradient_of_the_margins_matches_finite_differences() -> None:
    of_id, of_outliers = tensor(ID).requires_grad_(), tensor(OOD).requires_grad_()
    energy_margin(of_id, of_outliers, -0.5, 1.0).backward()
    assert_close(of_id.grad, differences(lambda x: naive(x, OOD, -0.5, 1.0), of_id))
    assert_close(of_outliers.grad, differences(lambda x: naive(ID, x, -0.5, 1.0), of_outliers))
