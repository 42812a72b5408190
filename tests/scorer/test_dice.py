"""Energy with sparse weights against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import CLASSES, DIM, TEST, TRAIN, head


@each("percentile", [0.0, 60.0, 90.0])
def test_it_is_the_energy_with_the_largest_contributions_kept(percentile: float) -> None:
    scores = build_scorer("dice", percentile=percentile).fit(TRAIN, head=head()).score(TEST)
    weight, mean = head().weight.numpy(), TRAIN.features.numpy().mean(0)
    threshold = np.percentile([[w * m for w, m in zip(row, mean, strict=True)] for row in weight], percentile)
    for x, ours in zip(TEST.features.numpy(), scores.tolist(), strict=True):
        logits = [
            sum(w * v for w, v, m in zip(row, x, mean, strict=True) if w * m > threshold) + b
            for row, b in zip(weight, head().bias.tolist(), strict=True)
        ]
        assert ours == pytest.approx(-np.log(np.exp(logits).sum()), rel=1e-10)


def test_it_keeps_a_tenth_of_the_weights() -> None:
    scorer = build_scorer("dice", percentile=90.0).fit(TRAIN, head=head())
    assert (scorer.sparse != 0).sum().item() == round(0.1 * CLASSES * DIM)  # type: ignore[attr-defined]
