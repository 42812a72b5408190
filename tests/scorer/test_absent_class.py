"""The odds of being none of the classes: values, their order, and where they are taken."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.head.absent_class import AbsentClass as Head
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet
from tests.views import normal

C, ROWS = 4, 40


def given(outputs: Tensor) -> FeatureSet:
    """What the head gives to detectors for its K + 1 outputs."""
    seen = Head(8, False, projection_dim=4).tested(normal(len(outputs), 8), outputs)
    return FeatureSet(seen["absent"], seen["logits"])


def scores(outputs: Tensor) -> Tensor:
    return build_scorer("absent_class").score(given(outputs))


def share(row: list[float]) -> float:
    """p(K + 1)."""
    return math.exp(row[-1]) / sum(math.exp(x) for x in row)


def test_it_is_the_log_of_the_odds_of_the_last_class() -> None:
    outputs = 3 * normal(ROWS, C + 1)
    expected = [math.log(share(row) / (1 - share(row))) for row in outputs.tolist()]
    assert scores(outputs).tolist() == pytest.approx(expected, abs=1e-10)


def test_it_orders_rows_as_the_probability_of_the_last_class_does() -> None:
    outputs = 3 * normal(ROWS, C + 1)
    expected = sorted(range(ROWS), key=lambda i: share(outputs[i].tolist()))
    assert scores(outputs).argsort().tolist() == expected


def test_a_row_whose_last_output_is_largest_scores_above_0_and_a_recognised_one_below() -> None:
    absent, recognised = scores(torch.tensor([[0.0, 1.0, 0.0, 0.0, 9.0], [9.0, 1.0, 0.0, 0.0, 0.0]])).tolist()
    assert absent > 0 > recognised


def test_single_precision_is_scored_in_double() -> None:
    outputs = (3 * normal(ROWS, C + 1)).float()
    found = scores(outputs)
    assert found.dtype == torch.float64
    expected = [math.log(share(row) / (1 - share(row))) for row in outputs.tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_it_tells_rows_apart_whose_probability_is_rounded_to_0_or_1() -> None:
    last = torch.tensor([200.0, 300.0, -200.0, -300.0])
    outputs = torch.cat([torch.zeros(4, C), last[:, None]], dim=1)
    assert scores(outputs).tolist() == pytest.approx([x - math.log(C) for x in last.tolist()])


def test_what_it_was_fitted_with_does_not_matter() -> None:
    outputs = normal(ROWS, C + 1)
    fitted = build_scorer("absent_class").fit(given(normal(9, C + 1, seed=1)))
    assert fitted.score(given(outputs)).tolist() == scores(outputs).tolist()


def test_it_is_asked_for_by_name_in_the_space_of_the_last_output() -> None:
    scorer = build_scorer("absent_class")
    assert (scorer.by_name_only, scorer.space, scorer.requires) == (True, "absent", ())
    assert scorer.space in Head.gives
