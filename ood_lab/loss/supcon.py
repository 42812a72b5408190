"""Supervised contrastive loss and NT-Xent. Shape letters: B rows of this device, N rows of all, D dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def supcon(z_BD: Tensor, whole_ND: Tensor, own_B: Tensor, groups_N: Tensor, temperature: float) -> Tensor:
    """-1/B sum_i 1/|P_i| sum_{p in P_i} log e^{z_i.z_p/tau} / sum_{a != i} e^{z_i.z_a/tau} (Khosla et al. 2020, Eq. 2).

    P_i holds the other rows of i's group: its class (SupCon), or its image (NT-Xent of SimCLR, Chen et al. 2020). A row
    that is alone in its group counts 0. The public codes multiply by tau / 0.07; put that into the weight.

    Args:
        z_BD: unit vectors.
        whole_ND: unit vectors of all devices; of one device the same rows.
        own_B: the places of z_BD in whole_ND.
        groups_N: of whole_ND.
    """
    own = torch.zeros(len(z_BD), len(whole_ND), dtype=torch.bool, device=z_BD.device)
    own = own.scatter(1, own_B[:, None], True)
    similarity = z_BD @ whole_ND.T / temperature
    rest = similarity.masked_fill(own, torch.finfo(similarity.dtype).min).logsumexp(1)
    positive = (groups_N[own_B, None] == groups_N) & ~own
    count = positive.sum(1)
    mean = (similarity * positive).sum(1) / count.clamp(min=1)
    return ((rest - mean) * (count > 0)).mean()
