"""Entropy of the softmax against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.scorer.case import TEST


def test_it_is_the_entropy_of_the_softmax() -> None:
    scores = build_scorer("entropy").score(TEST).tolist()
    for row, ours in zip(TEST.logits.tolist(), scores, strict=True):
        total = sum(math.exp(x - max(row)) for x in row)
        p = [math.exp(x - max(row)) / total for x in row]
        assert ours == pytest.approx(-sum(q * math.log(q) for q in p), abs=1e-12)


def test_the_uniform_distribution_has_the_largest() -> None:
    even, sure = build_scorer("entropy").score(TEST._replace(logits=torch.tensor([[0.0, 0.0], [50.0, 0.0]])))
    assert even.item() == pytest.approx(math.log(2))
    assert 0 <= sure < 1e-18
