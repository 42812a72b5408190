"""Telling ID rows from outliers by logistic regression. Shape letters: B ID rows, K outliers, C classes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["joint", "sum", "mean"]


def over_both_sides(id_B: Tensor, outliers_K: Tensor, reduction: Reduction, id_share: float | None = None) -> Tensor:
    """One number of the losses of ID rows and outliers.

    "joint": the mean over all rows (the codes of VOS, NPOS, DreamOOD). "sum": of the two means (BOOD, Eq. 7). "mean":
    half of that.

    Args:
        id_share: of all rows those that are ID, on all devices together; None counts these.
    """
    of_id, of_outliers = id_B.mean(), outliers_K.mean()
    if reduction == "joint":
        share = len(id_B) / (len(id_B) + len(outliers_K)) if id_share is None else id_share
        return share * of_id + (1 - share) * of_outliers
    return (of_id + of_outliers) / (1 if reduction == "sum" else 2)


def binary_losses(id_logits_B: Tensor, outlier_logits_K: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of rows [B] and [K] of a head that calls ID 1 and outliers 0."""
    return F.softplus(-id_logits_B), F.softplus(outlier_logits_K)


def weighted_energy(logits_BC: Tensor, weights_C: Tensor) -> Tensor:
    """-E = log sum_c relu(w_c) e^{f_c} [B] (VOS, section 3.2); w = 1 is the log-sum-exp. Higher is ID.

    NaN, which ends the run, where no class has a weight above 0.
    """
    logits_BC = logits_BC.masked_fill(weights_C <= 0, -torch.inf)
    highest = logits_BC.amax(1, keepdim=True)
    return highest.squeeze(1) + torch.log(((logits_BC - highest).exp() * weights_C.relu()).sum(1))
