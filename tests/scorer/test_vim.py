"""The virtual logit against NumPy, and the rule for its dimension."""

from __future__ import annotations

import numpy as np
import pytest

from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import DIM, TEST, TRAIN, head


@each("dim", [3, 8, None])
def test_it_is_the_scaled_residual_beside_the_energy(dim: int | None) -> None:
    scores = build_scorer("vim", dim=dim).fit(TRAIN, head=head()).score(TEST)
    weight, bias = head().weight.numpy(), head().bias.numpy()
    origin = -np.linalg.pinv(weight) @ bias
    x = TRAIN.features.numpy() - origin
    values, vectors = np.linalg.eig(x.T @ x / len(x))
    rest = vectors[:, np.argsort(-values)][:, (dim or DIM // 2) :]
    alpha = TRAIN.logits.numpy().max(1).mean() / np.linalg.norm(x @ rest, axis=1).mean()
    for row, logits, ours in zip(TEST.features.numpy(), TEST.logits.numpy(), scores.tolist(), strict=True):
        virtual = alpha * np.linalg.norm(rest.T @ (row - origin))
        assert ours == pytest.approx(virtual - np.log(np.exp(logits).sum()), rel=1e-8)


def test_a_dimension_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=f"dim={DIM} leaves nothing of {DIM} features"):
        build_scorer("vim", dim=DIM).fit(TRAIN, head=head())
