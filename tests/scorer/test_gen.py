"""Generalised entropy against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import TEST


@each("gamma", [0.1, 0.5])
@each("top", [1, 3, 5, 100])
def test_it_is_the_sum_over_the_top_classes(gamma: float, top: int) -> None:
    scores = build_scorer("gen", gamma=gamma, top_m=top).score(TEST).tolist()
    for row, ours in zip(TEST.logits.tolist(), scores, strict=True):
        total = sum(math.exp(x - max(row)) for x in row)
        p = sorted((math.exp(x - max(row)) / total for x in row), reverse=True)[:top]
        assert ours == pytest.approx(sum((q * (1 - q)) ** gamma for q in p), rel=1e-9)


def test_a_saturated_softmax_has_a_number() -> None:
    scores = build_scorer("gen").score(TEST._replace(logits=torch.tensor([[1000.0, 0.0], [0.0, 0.0]])))
    assert scores.tolist() == [0.0, pytest.approx(2 * 0.25**0.1)]
