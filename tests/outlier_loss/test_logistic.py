"""The linear head that tells ID rows from outliers: value against a loop, and what it trains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.logistic import Logistic
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, unit

D, ROWS, K = 5, 7, 4
LABELS = torch.zeros(ROWS, dtype=torch.int64)


def logistic() -> Logistic:
    torch.manual_seed(0)
    return Logistic(Dimensions(3, 8, D)).double()


def view(z: Tensor, outliers: Tensor) -> View:
    return View(id=Rows(z=z), labels=LABELS, kept={}, outliers=Rows(z=outliers))


def naive(z: list, outliers: list, weight: list, bias: float) -> float:
    """Both halves of the binary cross-entropy, of the probability of being ID."""

    def probability(row: list) -> float:
        return 1 / (1 + math.exp(-(dot([math.sqrt(D) * x for x in row], weight) + bias)))

    id_loss = sum(-math.log(probability(row)) for row in z) / len(z)
    return (id_loss + sum(-math.log(1 - probability(row)) for row in outliers) / len(outliers)) / 2


def of_head(term: Logistic) -> tuple[list, float]:
    return term.get_parameter("head.weight")[0].tolist(), term.get_parameter("head.bias").item()


@each(("rows", "outliers"), [(7, 4), (1, 1), (2, 9)])
def test_it_matches_the_loop_with_both_sides_weighing_the_same(rows: int, outliers: int) -> None:
    term, z, others = logistic(), unit(rows, D), unit(outliers, D, seed=1)
    expected = naive(z.tolist(), others.tolist(), *of_head(term))
    assert term.loss(view(z, others)).item() == pytest.approx(expected, abs=1e-10)


def test_it_trains_the_id_rows_and_its_head() -> None:
    term, z, others = logistic(), unit(ROWS, D).requires_grad_(), unit(K, D, seed=1)
    term.loss(view(z, others)).backward()
    weight, bias = of_head(term)
    assert_close(z.grad, differences(lambda rows: naive(rows, others.tolist(), weight, bias), z))
    head = dict(term.head.named_parameters())
    for_weight = differences(lambda w: naive(z.tolist(), others.tolist(), w[0], bias), head["weight"])
    assert_close(head["weight"].grad, for_weight)
    for_bias = differences(lambda b: naive(z.tolist(), others.tolist(), weight, b[0]), head["bias"])
    torch.testing.assert_close(head["bias"].grad, for_bias, atol=1e-7, rtol=0)


def test_descent_makes_the_head_call_id_rows_positive_and_outliers_negative() -> None:
    term = logistic()
    z, others = unit(40, D), unit(40, D, seed=1)
    z[:, 0], others[:, 0] = z[:, 0].abs() + 0.1, -others[:, 0].abs() - 0.1
    optimizer = torch.optim.Adam(term.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        term.loss(view(z, others)).backward()
        optimizer.step()
    assert term.head(z).min() > 0
    assert term.head(others).max() < 0


def test_it_reads_projections_of_both_sides_alone() -> None:
    assert_reads_exactly(logistic(), LABELS, {"z": unit(ROWS, D)}, {"z": unit(K, D, seed=1)}, {})
    assert logistic().keeps() == {}


def test_its_head_is_as_wide_as_the_projections_and_all_that_it_owns() -> None:
    assert {name: tuple(p.shape) for name, p in logistic().named_parameters()} == {
        "head.weight": (1, D),
        "head.bias": (1,),
    }
