"""The closed form against autograd at the head's weights."""

from __future__ import annotations

import pytest
import torch

from ood_lab.scorer import build_scorer
from tests.scorer.case import TEST, head


def test_it_is_the_norm_of_the_gradient_at_the_head() -> None:
    scores = build_scorer("gradnorm").score(TEST).tolist()
    for x, ours in zip(TEST.features, scores, strict=True):
        weight = head().weight.clone().requires_grad_()
        logits = weight @ x + head().bias
        loss = -logits.log_softmax(0).mean()  # cross-entropy to the uniform distribution: KL up to a constant
        (gradient,) = torch.autograd.grad(loss, weight)
        assert ours == pytest.approx(-gradient.abs().sum().item(), rel=1e-10)
