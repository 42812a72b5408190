"""Inner product with the stored pattern against a plain loop."""

from __future__ import annotations

import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.scorer.case import CLASSES, DIM, TEST, TRAIN


def test_it_is_the_product_with_the_mean_of_the_rightly_predicted_rows() -> None:
    scores = build_scorer("she").fit(TRAIN).score(TEST).tolist()
    assert TRAIN.labels is not None
    patterns = torch.zeros(CLASSES, DIM, dtype=torch.float64)
    for c in range(CLASSES):
        mine = [x for x, f, y in zip(TRAIN.features, TRAIN.logits, TRAIN.labels, strict=True) if y == c == f.argmax()]
        patterns[c] = sum(mine) / len(mine) if mine else 0  # type: ignore[operator]
    for x, f, ours in zip(TEST.features, TEST.logits, scores, strict=True):
        assert ours == pytest.approx(-float(x @ patterns[f.argmax()]), rel=1e-12)


def test_without_labels_it_says_so() -> None:
    with pytest.raises(ValueError, match="SHE needs the training labels"):
        build_scorer("she").fit(TRAIN._replace(labels=None))
