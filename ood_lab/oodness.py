"""HamOS's density of being OOD between two classes, and the ID probability of its margin (HamOS, section 3.2).

Shape letters: B points, C classes, N bank rows a class, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ood_lab.kth import kth_largest_column
from ood_lab.sphere import vmf_kernel_log_density

Density = Literal["paper", "released"]
ROWS = 128  # points a block in the kernel density: 128 x 1000 similarities stay in a core's cache


def oodness(z_BD: Tensor, neighbours_B2D: Tensor) -> Tensor:
    """P^OOD(z; u, v) = (|z - z_u(k)| + |z - z_v(k)|) / 2 [B] (HamOS, Eq. 1)."""
    return (z_BD[:, None] - neighbours_B2D).norm(dim=-1).mean(1)


def potential_and_gradient(z_BD: Tensor, neighbours_B2D: Tensor) -> tuple[Tensor, Tensor]:
    """U = -log P^OOD [B] (HamOS, Eq. 2) and its gradient [B, D] with the neighbours held fixed.

    grad U = -(n_u + n_v) / (d_u + d_v), n_i the unit vector from the neighbour to z and d_i its length. The paper's
    Eq. 4 has exp(-U) where the derivative of Eq. 2 has exp(U) / 2; the release differentiates Eq. 2, as here.
    """
    away_B2D = z_BD[:, None] - neighbours_B2D
    distance_B2 = away_B2D.norm(dim=-1)
    total = distance_B2.sum(1)
    unit = away_B2D / distance_B2.clamp(min=1e-12).unsqueeze(-1)
    return -(total / 2).log(), -unit.sum(1) / total.unsqueeze(1)


def neighbour_search(bank_CND: Tensor, pairs_B2: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """A function from points [B, D] to their k-th nearest rows [B, 2, D] in each chain's two classes.

    Both members of a pair and all chains that ask one class share one matrix product.
    """
    wanted = pairs_B2.flatten()
    order = wanted.argsort(stable=True)
    classes, counts = wanted[order].unique_consecutive(return_counts=True)
    dims, chains, flat_classes = counts.tolist(), order // 2, wanted[order]
    banks = [bank_CND[label].T for label in classes.tolist()]
    similarity = bank_CND.new_empty(len(wanted), bank_CND.shape[1])

    def search(z_BD: Tensor) -> Tensor:
        for queries, rows, out in zip(z_BD[chains].split(dims), banks, similarity.split(dims), strict=True):
            torch.mm(queries, rows, out=out)
        found = bank_CND[flat_classes, kth_largest_column(similarity, k)]
        neighbours = torch.empty_like(found)
        neighbours[order] = found
        return neighbours.view(len(z_BD), 2, -1)

    return search


def negative_log_id_probability(
    z_BD: Tensor, bank_CND: Tensor, kappa: float, *, density: Density = "paper", k: int = 200
) -> Tensor:
    """-log max_c P_c^ID(z) [B], the ID probability of the margin (HamOS, Eqs. 11, 12 and 5).

    "paper": kernel means over all rows of each class, P_c their share. "released": kernel mean over the k nearest
    rows of each class, divided by the class's largest kernel value, then a softmax over classes (almost flat).
    """
    parts = []
    for block in z_BD.split(ROWS):
        if density == "paper":
            log_p = torch.stack([vmf_kernel_log_density(block, rows, kappa) for rows in bank_CND], dim=1)
        else:
            log_p = torch.stack([_relative_kernel_mean(block @ rows.T, kappa, k) for rows in bank_CND], dim=1)
        parts.append(log_p.logsumexp(1) - log_p.amax(1))
    return torch.cat(parts)


def _relative_kernel_mean(similarity_BN: Tensor, kappa: float, k: int) -> Tensor:
    """mean over the k largest of exp(kappa s) / max exp(kappa s)  [B]."""
    k = min(k, similarity_BN.shape[1])
    if similarity_BN.device.type == "cpu":
        similarity_BN.numpy().partition(similarity_BN.shape[1] - k, axis=1)  # in place: the block is ours
        largest = similarity_BN[:, -k:]
    else:
        largest = similarity_BN.topk(k, dim=1, sorted=False).values
    return (kappa * (largest - largest.amax(1, keepdim=True))).exp_().mean(1)
