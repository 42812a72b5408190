"""Outlier Exposure (Hendrycks et al. 2019): outliers are pulled to the uniform distribution."""

from __future__ import annotations

from torch import Tensor


def outlier_exposure(logits: Tensor) -> Tensor:
    """Mean cross-entropy to the uniform distribution, up to log C: mean_b (logsumexp_c f_bc - mean_c f_bc).

    Source: the authors' code; AOE's Eq. 5 prints the term with its sign flipped, its code has it as here.

    Args:
        logits: of the outliers, [B, C].
    """
    return (logits.logsumexp(1) - logits.mean(1)).mean()
