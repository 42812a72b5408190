"""LINe against a plain loop with NumPy's percentiles."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import CLASSES, TEST, TRAIN, head


@each(("neurons", "weights", "clip"), [(90.0, 90.0, 1.0), (10.0, 90.0, 1.0), (50.0, 10.0, 0.8)])
def test_it_is_the_energy_through_the_important_neurons_and_weights(
    neurons: float, weights: float, clip: float
) -> None:
    options = {"neurons": neurons, "weights": weights, "clip": clip}
    scores = build_scorer("line", **options).fit(TRAIN, head=head()).score(TEST).tolist()
    w, b = head().weight.numpy(), head().bias.numpy()
    assert TRAIN.labels is not None
    means = [TRAIN.features[TRAIN.labels == c].numpy().mean(0) for c in range(CLASSES)]
    shapley = np.array([w[c] * means[c] for c in range(CLASSES)])
    for x, ours in zip(np.minimum(TEST.features.numpy(), clip), scores, strict=True):
        c = int(np.argmax(w @ x + b))
        kept = shapley[c] > np.percentile(shapley[c], neurons)
        importance = np.abs(shapley[c]) * w
        sparse = np.where(importance > np.percentile(importance, weights), w, 0)
        logits = [sum(sparse[k, d] * x[d] * kept[d] for d in range(len(x))) + b[k] for k in range(CLASSES)]
        assert ours == pytest.approx(-np.log(np.exp(logits).sum()), rel=1e-9)


def test_a_class_that_does_not_occur_scores_by_the_bias() -> None:
    assert TRAIN.labels is not None
    some = TRAIN.labels != 2
    train = type(TRAIN)(TRAIN.features[some], TRAIN.logits[some], TRAIN.labels[some])
    scores = build_scorer("line").fit(train, head=head()).score(TEST)
    predicted = (TEST.features.clamp(max=1.0) @ head().weight.T + head().bias).argmax(1)
    assert (predicted == 2).any()
    alone = -float(np.log(np.exp(head().bias.numpy()).sum()))
    assert scores[predicted == 2].tolist() == pytest.approx([alone] * int((predicted == 2).sum()))
