"""The small network that tells ID rows from outliers on penultimate features: values against loops, what is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.outlier_loss.logistic_penultimate import LogisticPenultimate
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, normal

D, HIDDEN, ROWS, K = 4, 7, 6, 3
LABELS = torch.zeros(ROWS, dtype=torch.int64)
REDUCTIONS = ["joint", "sum", "mean"]


def logistic(hidden: int = HIDDEN, reduction: Any = "joint", **schedule: Any) -> LogisticPenultimate:
    torch.manual_seed(0)
    return LogisticPenultimate(Dimensions(3, D, 9), hidden=hidden, reduction=reduction, **schedule).double()


def view(features: Tensor, outliers: Tensor, id_share: float | None = None) -> View:
    return View(id=Rows(features=features), labels=LABELS, kept={}, outliers=Rows(features=outliers), id_share=id_share)


def state(term: LogisticPenultimate) -> dict[str, list]:
    return {name: values.tolist() for name, values in term.named_parameters()}


def naive(features: list, outliers: list, given: dict[str, list], reduction: str) -> float:
    """Binary cross-entropy of the probability of being ID."""

    def probability(row: list) -> float:
        if "head.weight" in given:
            return 1 / (1 + math.exp(-dot(given["head.weight"][0], row) - given["head.bias"][0]))
        inner = [max(dot(w, row) + b, 0.0) for w, b in zip(given["head.0.weight"], given["head.0.bias"], strict=True)]
        return 1 / (1 + math.exp(-dot(given["head.2.weight"][0], inner) - given["head.2.bias"][0]))

    of_id = [-math.log(probability(row)) for row in features]
    of_outliers = [-math.log(1 - probability(row)) for row in outliers]
    if reduction == "joint":
        return sum(of_id + of_outliers) / (len(of_id) + len(of_outliers))
    total = sum(of_id) / len(of_id) + sum(of_outliers) / len(of_outliers)
    return total if reduction == "sum" else total / 2


@each("reduction", REDUCTIONS)
@each("hidden", [0, HIDDEN, 128])
@each(("rows", "outliers"), [(6, 3), (1, 1), (2, 9)])
def test_it_matches_the_loop(rows: int, outliers: int, hidden: int, reduction: str) -> None:
    term, features, others = logistic(hidden, reduction), 3 * normal(rows, D), 3 * normal(outliers, D, seed=1)
    expected = naive(features.tolist(), others.tolist(), state(term), reduction)
    assert term.loss(view(features, others)).item() == pytest.approx(expected, abs=1e-10)


@each("reduction", REDUCTIONS)
def test_it_trains_both_sides_and_all_that_it_owns(reduction: str) -> None:
    term = logistic(reduction=reduction)
    features, others = normal(ROWS, D).requires_grad_(), normal(K, D, seed=1).requires_grad_()
    term.loss(view(features, others)).backward()
    given = state(term)
    assert_close(features.grad, differences(lambda x: naive(x, others.tolist(), given, reduction), features))
    assert_close(others.grad, differences(lambda x: naive(features.tolist(), x, given, reduction), others))

    def of(name: str) -> Callable[[list], float]:
        return lambda x: naive(features.tolist(), others.tolist(), given | {name: x}, reduction)

    for name, parameter in term.named_parameters():
        assert_close(parameter.grad, differences(of(name), parameter))


@each("reduction", REDUCTIONS)
def test_two_devices_with_the_same_outliers_have_the_mean_of_one(reduction: str) -> None:
    term, features, others = logistic(reduction=reduction), 3 * normal(ROWS, D), 3 * normal(K, D, seed=1)
    share = ROWS / (ROWS + K)
    halves = [term.loss(view(features[first::2], others, share)) for first in (0, 1)]
    expected = naive(features.tolist(), others.tolist(), state(term), reduction)
    assert sum(half.item() for half in halves) / 2 == pytest.approx(expected, abs=1e-12)


@each("scale", [1e4, -1e4])
def test_it_is_finite_for_huge_features(scale: float) -> None:
    term = logistic()
    features, others = (scale * normal(ROWS, D)).requires_grad_(), -scale * normal(K, D, seed=1)
    found = term.loss(view(features, others))
    found.backward()
    assert found.isfinite()
    for values in (features, *term.parameters()):
        assert values.grad is not None
        assert values.grad.isfinite().all()


def test_features_are_taken_with_their_length() -> None:
    term, features, others = logistic(), normal(ROWS, D), normal(K, D, seed=1)
    found = term.loss(view(features, others))
    assert (term.loss(view(2 * features, others)) - found).abs() > 1e-3
    assert (term.loss(view(features, 2 * others)) - found).abs() > 1e-3


def test_descent_makes_the_head_call_id_rows_positive_and_outliers_negative() -> None:
    term, features, others = logistic(), 3 + normal(20, D), -3 + normal(20, D, seed=1)
    optimizer = torch.optim.Adam(term.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        term.loss(view(features, others)).backward()
        optimizer.step()
    assert term.head(features).min() > 0
    assert term.head(others).max() < 0


def test_it_reads_features_of_both_sides_alone() -> None:
    term = logistic(weight=3.0)
    term.name = "logistic_penultimate"
    assert_reads_exactly(term, LABELS, {"features": normal(ROWS, D)}, {"features": normal(K, D, seed=1)}, {})
    assert term.keeps() == {}
    assert (LogisticPenultimate.views, term.weights()) == (1, {"logistic_penultimate": 3.0})


def test_its_head_is_as_wide_as_the_features_and_all_that_it_owns() -> None:
    assert {name: tuple(p.shape) for name, p in logistic(128).named_parameters()} == {
        "head.0.weight": (128, D),
        "head.0.bias": (128,),
        "head.2.weight": (1, 128),
        "head.2.bias": (1,),
    }
