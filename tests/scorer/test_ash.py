"""Energy of shaped features against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import DIM, TEST, TRAIN, head


def naive(x: np.ndarray, variant: str, percentile: float) -> np.ndarray:
    kept = np.argsort(-x, kind="stable")[: DIM - round(DIM * percentile / 100)]
    out = np.zeros_like(x)
    if variant == "b":
        out[kept] = x.sum() / len(kept)
        return out
    out[kept] = x[kept]
    return out * np.exp(x.sum() / out.sum()) if variant == "s" else out


@each("variant", ["s", "p", "b"])
@each("percentile", [0.0, 65.0, 90.0])
def test_it_is_the_energy_of_the_shaped_features(variant: str, percentile: float) -> None:
    scores = build_scorer("ash", variant=variant, percentile=percentile).fit(TRAIN, head=head()).score(TEST)
    for x, ours in zip(TEST.features.numpy(), scores.tolist(), strict=True):
        logits = head().weight.numpy() @ naive(x, variant, percentile) + head().bias.numpy()
        assert ours == pytest.approx(-(np.log(np.exp(logits - logits.max()).sum()) + logits.max()), rel=1e-9)
