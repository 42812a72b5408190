"""The term that pushes energies apart: values against loops, what is trained, and that descent separates both sides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.jensen_shannon import JensenShannon
from ood_lab.parts import Dimensions
from tests.cases import each
from tests.energies import view
from tests.views import assert_close, assert_reads_exactly, differences, normal

ROWS, K, FLOOR = 6, 4, 1e-6
LABELS = torch.zeros(ROWS, dtype=torch.int64)
OBJECTIVES = ["reciprocal", "negative"]
MIDDLES = ["moments", "average", "quarter"]
PRINTED = [False, True]


def term(**changes: Any) -> JensenShannon:
    options: dict[str, Any] = {
        "objective": "reciprocal", "epsilon": 1e-3, "middle": "moments", "printed": False, "outliers": "head",
    }  # fmt: skip
    return JensenShannon(Dimensions(3, 8, 5), **{**options, **changes})


def given(rows: int = ROWS, outliers: int = K) -> tuple[Tensor, Tensor]:
    return 1.5 * normal(rows, 1) - 3, normal(outliers, 1, seed=1) - 1


def naive(of_id: list, of_outliers: list, objective: str, middle: str, printed: bool, epsilon: float = 1e-3) -> float:
    """Eqs. 8 to 11 and 13."""
    laws = []
    for rows in (of_id, of_outliers):
        mean = sum(x for (x,) in rows) / len(rows)
        squares = sum((x - mean) ** 2 for (x,) in rows) / len(rows) + FLOOR
        laws.append((mean, squares if printed else math.sqrt(squares)))
    (m_p, s_p), (m_q, s_q) = laws
    between = {
        "moments": (s_p**2 + m_p**2 + s_q**2 + m_q**2) / 2 - ((m_p + m_q) / 2) ** 2,
        "average": (s_p**2 + s_q**2) / 2,
        "quarter": (s_p**2 + s_q**2) / 4,
    }[middle]
    apart = 0.0
    for mean, deviation in laws:
        gap = mean - (m_p + m_q) / 2
        apart += (math.log(math.sqrt(between) / deviation) + (deviation**2 + gap**2) / (2 * between) - 0.5) / 2
    return -apart if objective == "negative" else 1 / (apart + epsilon)


@each("printed", PRINTED)
@each("middle", MIDDLES)
@each("objective", OBJECTIVES)
@each("epsilon", [1e-3, 0.5])
@each(("rows", "outliers"), [(6, 4), (5, 5), (2, 9)])
def test_it_matches_the_loop(
    rows: int, outliers: int, epsilon: float, objective: str, middle: str, printed: bool
) -> None:
    made = term(objective=objective, epsilon=epsilon, middle=middle, printed=printed)
    of_id, of_outliers = given(rows, outliers)
    expected = naive(of_id.tolist(), of_outliers.tolist(), objective, middle, printed, epsilon)
    assert made.loss(view(of_id, of_outliers)).item() == pytest.approx(expected, rel=1e-9)


@each("outliers", ["head", "constant"])
@each("objective", OBJECTIVES)
@each("middle", MIDDLES)
def test_it_trains_both_sides_or_id_rows_alone(middle: str, objective: str, outliers: str) -> None:
    of_id, of_outliers = (x.requires_grad_() for x in given())
    term(objective=objective, middle=middle, outliers=outliers).loss(view(of_id, of_outliers)).backward()

    def of(values: list, others: list) -> float:
        return naive(values, others, objective, middle, False)

    assert_close(of_id.grad, differences(lambda x: of(x, of_outliers.tolist()), of_id), 1e-6)
    if outliers == "constant":
        assert of_outliers.grad is None
    else:
        assert_close(of_outliers.grad, differences(lambda x: of(of_id.tolist(), x), of_outliers), 1e-6)


@each("objective", OBJECTIVES)
@each("apart", [0.3, -0.3])
def test_descent_moves_the_energies_of_both_sides_apart(apart: float, objective: str) -> None:
    of_id = normal(40, 1)
    of_outliers = normal(40, 1, seed=1) + apart
    moves = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimizer, made = torch.optim.SGD(moves, lr=0.002), term(objective=objective)
    before = (of_outliers.mean() - of_id.mean()).item()
    for _ in range(50):
        optimizer.zero_grad()
        made.loss(view(of_id + moves[0], of_outliers + moves[1])).backward()
        optimizer.step()
    after = before + (moves[1] - moves[0]).item()
    assert after / before > 1.01


@each("objective", OBJECTIVES)
def test_the_same_energies_on_both_sides_are_finite_with_their_gradient(objective: str) -> None:
    of_id = normal(ROWS, 1).float().requires_grad_()
    found = term(objective=objective).loss(view(of_id, of_id.detach().clone()))
    found.backward()
    assert found.item() == pytest.approx(1000 if objective == "reciprocal" else 0, rel=1e-3, abs=1e-6)
    assert of_id.grad is not None
    assert of_id.grad.isfinite().all()


@each("objective", OBJECTIVES)
def test_every_device_has_the_loss_of_all_rows(objective: str) -> None:
    of_id, of_outliers = given()
    made = term(objective=objective)
    alone = made.loss(view(of_id, of_outliers))
    for rank in range(2):
        assert torch.equal(made.loss(view(of_id, of_outliers, slice(rank, None, 2))), alone)


def test_it_reads_energies_of_the_whole_batch_and_of_outliers_alone() -> None:
    of_id, of_outliers = given()
    assert_reads_exactly(term(), LABELS, {"energy": of_id}, {"energy": of_outliers}, {})
    named = term(weight=0.1)
    named.name = "jensen_shannon"
    assert (named.keeps(), named.weights(), named.views) == ({}, {"jensen_shannon": 0.1}, 1)
    assert list(named.parameters()) == []
