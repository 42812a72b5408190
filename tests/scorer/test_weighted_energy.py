"""The energy of the head as a score: values, their order, and where they are taken."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.head.weighted_energy import WeightedEnergy as Head
from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet
from tests.cases import each
from tests.views import normal

C, ROWS = 4, 40
WEIGHTS = [0.5, 2.0, 0.05, -0.7]


def head(weights: str = "learned") -> Head:
    made = Head(8, False, C, weights=weights, projection_dim=4)
    if weights == "learned":
        with torch.no_grad():
            made.class_weights.copy_(torch.tensor(WEIGHTS))
    return made


def given(logits: Tensor, weights: str = "learned") -> FeatureSet:
    """What the head gives to detectors."""
    with torch.no_grad():
        seen = head(weights).tested(normal(len(logits), 8), logits)
    return FeatureSet(seen["energy"], seen["logits"])


def scores(logits: Tensor, weights: str = "learned") -> Tensor:
    return build_scorer("weighted_energy").score(given(logits, weights))


def energy(row: list[float], weights: list[float]) -> float:
    return -math.log(sum(max(w, 0.0) * math.exp(x) for w, x in zip(weights, row, strict=True)))


def test_it_is_the_energy_in_double_precision() -> None:
    logits = 3 * normal(ROWS, C)
    found = scores(logits)
    assert found.dtype == torch.float64
    assert found.shape == (ROWS,)
    assert found.tolist() == pytest.approx([energy(row, WEIGHTS) for row in logits.tolist()], abs=1e-5)


def test_it_is_higher_where_no_class_is_recognised() -> None:
    unknown, known = scores(torch.tensor([[0.0, 0.1, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0]])).tolist()
    assert unknown > known


def test_a_class_without_weight_does_not_count() -> None:
    first, second = scores(torch.tensor([[1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 50.0]])).tolist()
    assert first == second


def test_without_weights_it_is_scorer_energy() -> None:
    logits = 3 * normal(ROWS, C)
    plain = build_scorer("energy").score(FeatureSet(torch.zeros(ROWS, 1), logits))
    torch.testing.assert_close(scores(logits, "none"), plain.double(), atol=1e-5, rtol=0)


@each("fitted", [False, True])
def test_it_learns_nothing_and_a_row_does_not_depend_on_the_others(fitted: bool) -> None:
    logits, scorer = 3 * normal(ROWS, C), build_scorer("weighted_energy")
    if fitted:
        scorer.fit(given(normal(9, C, seed=1)))
    assert not scorer.learns
    assert scorer.score(given(logits)).tolist() == [scorer.score(given(logits[i : i + 1])).item() for i in range(ROWS)]


def test_it_is_asked_for_by_name_in_the_space_of_the_energy() -> None:
    scorer = build_scorer("weighted_energy")
    assert (scorer.by_name_only, scorer.space, scorer.requires) == (True, "energy", ())
    assert scorer.space in Head.gives
