"""Energy of scaled features against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import DIM, TEST, TRAIN, head


@each("percentile", [0.0, 65.0, 85.0])
def test_it_is_the_energy_of_the_scaled_features(percentile: float) -> None:
    scores = build_scorer("scale", percentile=percentile).fit(TRAIN, head=head()).score(TEST)
    count = DIM - round(DIM * percentile / 100)
    for x, ours in zip(TEST.features.numpy(), scores.tolist(), strict=True):
        factor = np.exp(x.sum() / np.sort(x)[::-1][:count].sum())
        logits = head().weight.numpy() @ (x * factor) + head().bias.numpy()
        assert ours == pytest.approx(-(np.log(np.exp(logits - logits.max()).sum()) + logits.max()), rel=1e-9)
