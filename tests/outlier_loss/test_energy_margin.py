"""Margins on energies as a term: values against a loop, what is trained, and which outputs count."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.energy_margin import EnergyMargin
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, normal

C, ROWS, K = 3, 6, 4
LABELS = torch.zeros(ROWS, dtype=torch.int64)
M_IN, M_OUT = -2.0, -1.0


def energy_margin(m_in: float = M_IN, m_out: float = M_OUT, **schedule: float) -> EnergyMargin:
    return EnergyMargin(Dimensions(C, 8, 5), m_in=m_in, m_out=m_out, **schedule)


def loss(logits: Tensor, outliers: Tensor, m_in: float = M_IN, m_out: float = M_OUT) -> Tensor:
    id_rows, outlier_rows = (Rows(logits=rows).of_classes(C) for rows in (logits, outliers))
    term = energy_margin(m_in, m_out)
    return term.loss(View(id=id_rows, labels=LABELS, kept={}, outliers=outlier_rows).of(term))


def naive(logits: list, outliers: list, m_in: float = M_IN, m_out: float = M_OUT) -> float:
    """GReg, Eq. 1, of the first C outputs."""
    total = 0.0
    for row in logits:
        s = -math.log(sum(math.exp(x) for x in row[:C]))
        total += (s - m_in) ** 2 / len(logits) if s >= m_in else 0.0
    for row in outliers:
        s = -math.log(sum(math.exp(x) for x in row[:C]))
        total += (m_out - s) ** 2 / len(outliers) if s <= m_out else 0.0
    return total


@each("outputs", [C, C + 1])
@each(("m_in", "m_out"), [(M_IN, M_OUT), (-1.5, -1.5), (-25.0, -7.0), (-25.0, 7.0)])
@each(("rows", "outliers"), [(ROWS, K), (1, 1), (2, 9)])
def test_it_matches_the_loop(rows: int, outliers: int, m_in: float, m_out: float, outputs: int) -> None:
    logits, others = 2 * normal(rows, outputs), 2 * normal(outliers, outputs, seed=1)
    expected = naive(logits.tolist(), others.tolist(), m_in, m_out)
    assert loss(logits, others, m_in, m_out).item() == pytest.approx(expected, abs=1e-10)


@each("outputs", [C, C + 1])
def test_it_trains_the_classes_logits_of_both_sides_and_no_other_output(outputs: int) -> None:
    logits, others = normal(ROWS, outputs).requires_grad_(), normal(K, outputs, seed=1).requires_grad_()
    loss(logits, others).backward()
    assert_close(logits.grad, differences(lambda x: naive(x, others.tolist()), logits))
    assert_close(others.grad, differences(lambda x: naive(logits.tolist(), x), others))
    for rows in (logits, others):
        assert rows.grad[:, C:].abs().sum() == 0


def test_rows_beyond_their_margin_are_left_alone() -> None:
    logits, others = torch.full((2, C), 9.0).requires_grad_(), torch.full((3, C), -9.0).requires_grad_()
    found = loss(logits, others)
    found.backward()
    assert found.item() == logits.grad.abs().sum() == others.grad.abs().sum() == 0
    assert loss(others.detach(), logits.detach()) > 50


def test_descent_pushes_energies_to_their_margins() -> None:
    logits, others = normal(ROWS, C).requires_grad_(), normal(K, C, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([logits, others], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(logits, others, -4.0, 2.0).backward()
        optimizer.step()
    assert (-logits.logsumexp(1)).max() < -3.95
    assert (-others.logsumexp(1)).min() > 1.95


def test_it_reads_logits_of_both_sides_alone() -> None:
    term = energy_margin(weight=0.1)
    term.name = "energy_margin"
    assert_reads_exactly(term, LABELS, {"logits": normal(ROWS, C)}, {"logits": normal(K, C, seed=1)}, {})
    assert (term.keeps(), term.weights()) == ({}, {"energy_margin": 0.1})
    assert EnergyMargin.at_most == (("m_in", "m_out"),)
