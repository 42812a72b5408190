"""Energy of clipped features against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import TEST, TRAIN, head


@each("percentile", [50.0, 90.0, 100.0])
def test_it_is_the_energy_of_features_clipped_at_the_percentile(percentile: float) -> None:
    scores = build_scorer("react", percentile=percentile).fit(TRAIN, head=head()).score(TEST)
    threshold = np.percentile(TRAIN.features.numpy().ravel(), percentile)
    for x, ours in zip(TEST.features.numpy(), scores.tolist(), strict=True):
        logits = head().weight.numpy() @ np.minimum(x, threshold) + head().bias.numpy()
        assert ours == pytest.approx(-np.log(np.exp(logits).sum()), rel=1e-10)


def test_clipping_is_what_changes_the_energy() -> None:
    plain = build_scorer("energy").score(TEST)
    loose = build_scorer("react", percentile=100.0).fit(TEST, head=head()).score(TEST)
    torch.testing.assert_close(loose, plain)
    assert not torch.allclose(build_scorer("react").fit(TRAIN, head=head()).score(TEST), plain)


def test_openoods_threshold_is_of_the_validation_images() -> None:
    scores = build_scorer("react", activations="val").fit(TRAIN, head=head(), val=TEST).score(TEST)
    assert torch.equal(scores, build_scorer("react").fit(TEST, head=head()).score(TEST))
    with pytest.raises(ValueError, match="activations=val, but no ID images are kept for validation"):
        build_scorer("react", activations="val").fit(TRAIN, head=head())
