"""GODIN's score: the largest numerator, or OpenOOD's softmax of the numerators."""

from __future__ import annotations

import math

import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import TEST


@each("confidence", ["numerator", "softmax"])
def test_it_is_the_negative_confidence_of_the_numerators(confidence: str) -> None:
    scores = build_scorer("godin", confidence=confidence).score(TEST).tolist()
    for h, ours in zip(TEST.features.tolist(), scores, strict=True):
        softmax = 1 - max(math.exp(v) for v in h) / sum(math.exp(v) for v in h)
        assert ours == pytest.approx(-max(h) if confidence == "numerator" else softmax, rel=1e-9)


def test_the_images_are_moved_to_raise_the_largest_numerator() -> None:
    outputs = {"numerator": torch.tensor([[1.0, 3.0], [2.0, -1.0]]), "logits": torch.zeros(2, 2)}
    assert build_scorer("godin").objective(outputs).tolist() == [3.0, 2.0]  # type: ignore[attr-defined]
