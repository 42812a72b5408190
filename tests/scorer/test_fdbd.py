"""Distance to the decision boundaries against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import CLASSES, TEST, TRAIN, head


@each("normaliser", ["distance", "norm"])
def test_it_is_the_mean_distance_to_the_boundaries_over_that_to_the_mean(normaliser: str) -> None:
    scores = build_scorer("fdbd", normaliser=normaliser).fit(TRAIN, head=head()).score(TEST)
    weight, mean = head().weight.numpy(), TRAIN.features.numpy().mean(0)
    for x, logits, ours in zip(TEST.features.numpy(), TEST.logits.numpy(), scores.tolist(), strict=True):
        y = int(logits.argmax())
        distances = [
            abs(logits[y] - logits[c]) / np.linalg.norm(weight[y] - weight[c]) for c in range(CLASSES) if c != y
        ]
        away = np.linalg.norm(x - mean if normaliser == "distance" else x)
        assert ours == pytest.approx(-np.mean(distances) / away, rel=1e-10)
