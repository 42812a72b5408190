"""CIDER's prototype losses (Ming et al. 2023; HamOS, Eq. 22). Shape letters: B rows, C classes, D dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def compactness(z_BD: Tensor, labels_B: Tensor, prototypes_CD: Tensor, temperature: float) -> Tensor:
    """L_comp = -1/B sum_i log softmax_j(z_i . mu_j / tau)[y_i].

    The public codes multiply by tau / 0.07; put that into the weight.
    """
    return F.cross_entropy(z_BD @ prototypes_CD.T / temperature, labels_B)


def dispersion(prototypes_CD: Tensor, temperature: float) -> Tensor:
    """L_disp = 1/C sum_i log 1/(C-1) sum_{j != i} exp(mu_i . mu_j / tau)."""
    similarity = prototypes_CD @ prototypes_CD.T / temperature
    own = torch.eye(len(prototypes_CD), dtype=torch.bool, device=prototypes_CD.device)
    return similarity.masked_fill(own, -torch.inf).logsumexp(1).mean() - math.log(len(prototypes_CD) - 1)


def update_prototypes(
    prototypes_CD: Tensor, z_BD: Tensor, labels_B: Tensor, momentum: float, largest: int | None = None
) -> Tensor:
    """mu_c <- normalise(m mu_c + (1 - m) z_i) for each row i of class c, in batch order; the graph runs through z.

    As the public codes do, row by row; here one step moves every class by its next row, so that a batch takes as many
    steps as its largest class has rows.

    Args:
        largest: rows of the largest class, where they are known; counting them waits for the device.
    """
    counts = class_counts(labels_B, len(prototypes_CD))
    order = labels_B.argsort(stable=True)
    first = counts.cumsum(0) - counts
    for step in range(int(counts.max()) if largest is None else largest):
        active = step < counts
        rows = order[(first + step).clamp(max=len(order) - 1)]
        moved = F.normalize(momentum * prototypes_CD + (1 - momentum) * z_BD[rows], dim=1)
        prototypes_CD = torch.where(active[:, None], moved, prototypes_CD)
    return prototypes_CD


def class_counts(labels_B: Tensor, classes: int) -> Tensor:
    """How many rows each class has [C]; `bincount` would wait for the device."""
    return (labels_B[:, None] == torch.arange(classes, device=labels_B.device)).sum(0)


def rank_within_class(labels_B: Tensor, counts_C: Tensor) -> Tensor:
    """How many earlier rows of the batch have the same label [B]."""
    order = labels_B.argsort(stable=True)
    first = counts_C.cumsum(0) - counts_C
    rank = torch.empty_like(labels_B)
    rank[order] = torch.arange(len(labels_B), device=labels_B.device) - first[labels_B[order]]
    return rank
