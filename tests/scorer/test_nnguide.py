"""Guided energy against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import TEST, TRAIN


@each(("alpha", "count"), [(0.25, 50), (1.0, 200)])
def test_it_is_the_energy_times_the_mean_of_the_nearest(alpha: float, count: int) -> None:
    scores = build_scorer("nnguide", k=4, alpha=alpha, bank="first").fit(TRAIN).score(TEST)
    bank, energies = TRAIN.features.numpy()[:count], TRAIN.logits.logsumexp(1).numpy()[:count]
    for x, logits, ours in zip(TEST.features.numpy(), TEST.logits.numpy(), scores.tolist(), strict=True):
        near = sorted(
            (e * (x @ b) / np.linalg.norm(x) / np.linalg.norm(b) for b, e in zip(bank, energies, strict=True)),
            reverse=True,
        )
        assert ours == pytest.approx(-np.log(np.exp(logits).sum()) * np.mean(near[:4]), rel=1e-9)


def test_a_random_bank_is_fixed_and_another_than_the_first_rows() -> None:
    random = [build_scorer("nnguide", alpha=0.1).fit(TRAIN).score(TEST) for _ in range(2)]
    assert torch.equal(*random)
    assert not torch.allclose(random[0], build_scorer("nnguide", alpha=0.1, bank="first").fit(TRAIN).score(TEST))
