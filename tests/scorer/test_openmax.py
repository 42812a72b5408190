"""OpenMax against a plain loop, its Weibull fit against SciPy's, its order against pytorch-ood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from ood_lab.scorer import build_scorer
from ood_lab.scorer.openmax import SHIFT, weibull
from ood_lab.types import FeatureSet
from tests.cases import each
from tests.scorer.case import CLASSES, TEST, TRAIN


def naive_distance(kind: str, x: np.ndarray, mean: np.ndarray) -> float:
    euclidean = float(np.linalg.norm(x - mean))
    if kind == "euclidean":
        return euclidean
    return euclidean / 200 + 1 - float(x @ mean / np.linalg.norm(x) / np.linalg.norm(mean))


@each("kind", ["euclidean", "eucos"])
@each(("tail", "alpha"), [(20, 3), (5, 10)])
def test_it_is_the_log_odds_of_the_unknown_class(kind: str, tail: int, alpha: int) -> None:
    scores = build_scorer("openmax", tail=tail, alpha=alpha, distance=kind).fit(TRAIN).score(TEST).tolist()
    assert TRAIN.labels is not None
    logits, labels = TRAIN.logits.numpy(), TRAIN.labels.numpy()
    models = []
    for c in range(CLASSES):
        mine = logits[(labels == c) & (logits.argmax(1) == c)]
        mean = mine.mean(0)
        models.append((mean, *weibull(np.sort([naive_distance(kind, x, mean) for x in mine])[-tail:])))
    alpha = min(alpha, CLASSES)
    for x, ours in zip(TEST.logits.numpy(), scores, strict=True):
        revised, unknown = x.copy(), 0.0
        for rank, c in enumerate(np.argsort(-x)[:alpha]):
            mean, least, shape, log_scale = models[c]
            z = (naive_distance(kind, x, mean) - least + SHIFT) / np.exp(log_scale)
            part = (1 - np.exp(-(z**shape))) * (alpha - rank) / alpha
            revised[c], unknown = x[c] * (1 - part), unknown + x[c] * part
        odds = np.exp(unknown) / np.exp(revised).sum()
        assert ours == pytest.approx(np.log(odds), rel=1e-6, abs=1e-9)


def test_the_fit_is_scipys_maximum_likelihood() -> None:
    tail = np.sort(np.random.default_rng(0).gamma(3.0, size=40))
    least, shape, log_scale = weibull(tail)
    shifted = tail - tail[0] + SHIFT
    k, _, scale = stats.weibull_min.fit(shifted, shape, floc=0, scale=np.exp(log_scale))
    ours = stats.weibull_min.logpdf(shifted, shape, 0, np.exp(log_scale)).sum()
    assert least == tail[0]
    assert ours >= stats.weibull_min.logpdf(shifted, k, 0, scale).sum() - 1e-9
    for nearby in (0.99, 1.01):
        assert ours > stats.weibull_min.logpdf(shifted, shape * nearby, 0, np.exp(log_scale)).sum()


def test_equal_distances_make_a_step() -> None:
    train = FeatureSet(torch.zeros(6, 2), torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(3, 1), torch.tensor([0, 1] * 3))
    scores = (
        build_scorer("openmax", alpha=1)
        .fit(train)
        .score(FeatureSet(torch.zeros(2, 2), torch.tensor([[2.0, 0.0], [9.0, 0.0]])))
    )
    assert scores[1] > scores[0]


def test_a_network_that_classifies_nothing_rightly_is_said() -> None:
    assert TRAIN.labels is not None
    wrong = TRAIN._replace(labels=(TRAIN.logits.argmax(1) + 1) % CLASSES)
    with pytest.raises(ValueError, match="no training image is classified rightly"):
        build_scorer("openmax").fit(wrong)
