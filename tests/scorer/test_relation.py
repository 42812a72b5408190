"""The relation graph's score against a plain loop over training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_lab.scorer import build_scorer, relation
from tests.cases import each
from tests.scorer.case import TEST, TRAIN


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


@each(("power", "threshold"), [(1.0, 0.03), (4.0, 0.03), (1.0, 0.5), (2.0, 0.0)])
def test_it_is_the_sum_of_the_edges_above_the_threshold(power: float, threshold: float) -> None:
    scores = build_scorer("relation", power=power, threshold=threshold).fit(TRAIN).score(TEST).tolist()
    bank = [
        (x / np.linalg.norm(x), softmax(f)) for x, f in zip(TRAIN.features.numpy(), TRAIN.logits.numpy(), strict=True)
    ]
    for x, logits, ours in zip(TEST.features.numpy(), TEST.logits.numpy(), scores, strict=True):
        edges = [max(0.0, y @ x / np.linalg.norm(x)) * (q @ softmax(logits)) for y, q in bank]
        assert ours == pytest.approx(-sum(e**power for e in edges if e > threshold), rel=1e-9)


def test_the_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_scorer("relation").fit(TRAIN).score(TEST)
    monkeypatch.setattr(relation, "BLOCK", 7 * len(TRAIN.features))
    torch.testing.assert_close(build_scorer("relation").fit(TRAIN).score(TEST), whole)
