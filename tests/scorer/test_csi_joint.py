"""The ensemble of CSI's joint head."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.scorer import build_scorer
from tests.scorer.case import TEST, TRAIN
from tests.views import normal


def scores(joint: Tensor) -> list[float]:
    return build_scorer("csi_joint").score(TEST._replace(features=joint)).tolist()


def naive(row: list[float]) -> float:
    shares = [math.exp(x) for x in row]
    return 1 - max(shares) / sum(shares)


def test_it_is_one_minus_the_largest_share() -> None:
    joint = 3 * normal(len(TEST.features), 4)
    expected = [naive(row) for row in joint.tolist()]
    assert scores(joint) == pytest.approx(expected, abs=1e-12)
    assert max(expected) > 3 * min(expected)


def test_what_it_was_fitted_with_does_not_matter() -> None:
    joint = 3 * normal(len(TEST.features), 4)
    fitted = build_scorer("csi_joint").fit(TRAIN._replace(features=normal(len(TRAIN.features), 4, seed=1)))
    assert fitted.score(TEST._replace(features=joint)).tolist() == scores(joint)


def test_classes_that_are_told_apart_score_lower_than_such_that_are_not() -> None:
    sure, unsure = scores(torch.tensor([[9.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64).repeat(15, 1))[:2]
    assert sure < 0.01
    assert unsure == pytest.approx(2 / 3)
