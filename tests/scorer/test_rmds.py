"""Relative Mahalanobis distance against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.scorer.case import CLASSES, TEST, TRAIN


def test_it_is_the_distance_to_the_nearest_class_less_that_to_all() -> None:
    scores = build_scorer("rmds").fit(TRAIN).score(TEST)
    assert TRAIN.labels is not None
    x, y = TRAIN.features.numpy(), TRAIN.labels.numpy()
    means = np.stack([x[y == c].mean(0) for c in range(CLASSES)])
    tied = np.linalg.pinv(np.cov((x - means[y]).T, bias=True))
    whole = np.linalg.pinv(np.cov(x.T, bias=True))
    for row, ours in zip(TEST.features.numpy(), scores.tolist(), strict=True):
        near = min((row - m) @ tied @ (row - m) for m in means)
        assert ours == pytest.approx(near - (row - x.mean(0)) @ whole @ (row - x.mean(0)), rel=1e-8)


def test_with_fewer_rows_than_features_the_directions_without_variance_are_left_out() -> None:
    few = TRAIN._replace(features=TRAIN.features[:10], logits=TRAIN.logits[:10], labels=torch.arange(10) % CLASSES)
    assert torch.isfinite(build_scorer("rmds").fit(few).score(TEST)).all()


def test_without_labels_it_says_so() -> None:
    with pytest.raises(ValueError, match="RMDS needs the training labels"):
        build_scorer("rmds").fit(TRAIN._replace(labels=None))
