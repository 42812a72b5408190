"""Maximum concept matching is a softmax of cosines between image and text embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ood_lab.scorer import build_scorer
from ood_lab.types import FeatureSet, LinearHead
from tests.cases import each


@each("temperature", [1.0, 0.01])
def test_it_agrees_with_a_loop(temperature: float) -> None:
    random = np.random.default_rng(0)
    images, texts = random.normal(size=(7, 5)), random.normal(size=(4, 5)) * 3
    features = FeatureSet(torch.tensor(images), torch.zeros(7, 4, dtype=torch.float64))
    head = LinearHead(torch.tensor(texts), torch.full((4,), 9.0, dtype=torch.float64))  # the bias is not read
    scores = build_scorer("mcm", temperature=temperature).fit(features, head=head).score(features)
    for image, score in zip(images, scores, strict=True):
        cosines = [float(image @ t) / math.sqrt(float(image @ image) * float(t @ t)) for t in texts]
        weights = [math.exp(c / temperature) for c in cosines]
        assert float(score) == pytest.approx(1 - max(weights) / sum(weights), rel=1e-9, abs=1e-12)


def test_the_length_of_an_embedding_does_not_matter() -> None:
    random = torch.Generator().manual_seed(1)
    images, texts = torch.randn(6, 5, generator=random), torch.randn(3, 5, generator=random)
    logits = torch.zeros(6, 3)

    def scores(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        fitted = build_scorer("mcm").fit(FeatureSet(x, logits), head=LinearHead(t, torch.zeros(3)))
        return fitted.score(FeatureSet(x, logits))

    torch.testing.assert_close(scores(images, texts), scores(7 * images, 0.1 * texts))
