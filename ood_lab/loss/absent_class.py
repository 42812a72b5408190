"""Outliers as a class of their own (NTOM, Chen et al. 2021; DOS, Jiang et al. 2024)."""

from __future__ import annotations

from torch import Tensor


def absent_class(outputs: Tensor, absent: Tensor) -> Tensor:
    """Cross-entropy of outliers with the last class as their label: mean_b (logsumexp_c f_bc - f_b,K+1).

    Args:
        outputs: of the outliers, [B, K + 1].
        absent: the last of them, [B, 1].
    """
    return (outputs.logsumexp(1) - absent.squeeze(1)).mean()


def absent_log_odds(logits: Tensor, absent: Tensor) -> Tensor:
    """log p(K+1) / (1 - p(K+1)) [B]: higher where a row looks like none of the classes.

    Args:
        logits: of the K classes, [B, K].
        absent: the output for none of them, [B, 1].
    """
    return absent.squeeze(1) - logits.logsumexp(1)
