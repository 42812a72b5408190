"""Classifying embeddings by anchors, and the direction in which the loss rises. Shapes: B rows, C classes, D."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def anchor_logits(h_BD: Tensor, anchors_CD: Tensor, temperature: float, unit: bool = True) -> Tensor:
    """<h / |h|, Gamma_c> / t [B, C] in float32 or wider (BOOD, Eq. 2).

    Args:
        unit: whether anchors are taken to unit norm: a cosine.
    """
    with torch.autocast(h_BD.device.type, enabled=False):
        h_BD = h_BD if h_BD.dtype.itemsize >= 4 else h_BD.float()
        anchors_CD = F.normalize(anchors_CD, dim=1) if unit else anchors_CD
        return F.linear(F.normalize(h_BD, dim=1), anchors_CD.to(h_BD)) / temperature


def ascent_direction(
    h_BD: Tensor, norms_B: Tensor, logits_BC: Tensor, labels_B: Tensor, anchors_CD: Tensor, temperature: float
) -> Tensor:
    """A positive multiple of the gradient of the cross-entropy of `anchor_logits` with respect to h [B, D].

    dl/dh = (g - <g, h/|h|> h/|h|) / (t |h|), g = sum_c (p_c - [c = y]) Gamma_c. Its sign is that of
    |h|^2 g - <g, h> h; <g, h> follows from the logits without a further product.

    Args:
        norms_B: |h|.
        logits_BC: of h, for these anchors.
        anchors_CD: as the logits take them: of unit norm for cosines.
    """
    weights_BC = logits_BC.softmax(1)
    own_B1 = labels_B[:, None]
    weights_BC.scatter_(1, own_B1, 0.0)
    # p_y - 1 as what the others have: the difference would lose its digits where p_y is near 1.
    weights_BC.scatter_(1, own_B1, -weights_BC.sum(1, keepdim=True))
    along_B = (weights_BC * logits_BC).sum(1) * temperature  # <g, h> / |h|
    return torch.addcmul(weights_BC @ anchors_CD, h_BD, (along_B / norms_B)[:, None], value=-1)
