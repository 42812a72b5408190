"""HamOS's density of being OOD between two classes, and the ID probability of its margin (HamOS, section 3.2).

Shape letters: B points, C classes, N bank rows a class, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ood_lab.geometry.kth import kth_largest_column
from ood_lab.geometry.sphere import vmf_kernel_log_density

Density = Literal["paper", "released"]
AT_ONCE = 2**26  # similarities at a time on a device (256 MiB of float32)
ROWS = 128  # points a block in the kernel density: 128 x 1000 similarities stay in a core's cache


def potential_and_gradient(z_BD: Tensor, neighbours_B2D: Tensor) -> tuple[Tensor, Tensor]:
    """U = -log P^OOD [B] (HamOS, Eq. 2) and its gradient [B, D] with the neighbours held fixed.

    P^OOD = (|z - z_u(k)| + |z - z_v(k)|) / 2, the OOD-ness (Eq. 1).

    grad U = -(n_u + n_v) / (d_u + d_v), n_i the unit vector from the neighbour to z and d_i its length. The paper's
    Eq. 4 has exp(-U) where the derivative of Eq. 2 has exp(U) / 2; the release differentiates Eq. 2, as here.
    """
    away_B2D = z_BD[:, None] - neighbours_B2D
    distance_B2 = away_B2D.norm(dim=-1)
    total = distance_B2.sum(1).clamp(min=1e-12)  # where all features are one point
    unit = away_B2D / distance_B2.clamp(min=1e-12).unsqueeze(-1)
    return -(total / 2).log(), -unit.sum(1) / total.unsqueeze(1)


def neighbour_search(bank_CND: Tensor, pairs_B2: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """A function from points [B, D] to their k-th nearest rows [B, 2, D] in each chain's two classes."""
    return (sorted_search if bank_CND.device.type == "cpu" else gathered_search)(bank_CND, pairs_B2, k)


def gathered_search(bank_CND: Tensor, pairs_B2: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """`neighbour_search` for devices that must not be waited for: each chain has a copy of its classes' rows."""
    chains, rows, dim = len(pairs_B2), *bank_CND.shape[1:]
    asked = bank_CND[pairs_B2].flatten(1, 2)  # [B, 2N, D]
    chain, member = torch.arange(chains, device=bank_CND.device)[:, None], torch.arange(2, device=bank_CND.device)

    def search(z_BD: Tensor) -> Tensor:
        similarity = torch.bmm(asked, z_BD[:, :, None]).view(chains * 2, rows)
        column = kth_largest_column(similarity, k).view(chains, 2)
        return asked.view(chains, 2, rows, dim)[chain, member, column]

    return search


def sorted_search(bank_CND: Tensor, pairs_B2: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """`neighbour_search` on the CPU: all chains that ask one class share one matrix product."""
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
    by_class = z_BD.device.type == "cpu"
    rows = ROWS if by_class else max(1, AT_ONCE // bank_CND[..., 0].numel())
    parts = []
    for block in z_BD.split(rows):
        log_p = (_class_by_class if by_class else _all_classes)(block, bank_CND, kappa, density, k)
        parts.append(log_p.logsumexp(1) - log_p.amax(1))
    return torch.cat(parts)


def _class_by_class(z_BD: Tensor, bank_CND: Tensor, kappa: float, density: Density, k: int) -> Tensor:
    """log p_c [B, C] up to a constant: a small product for each class."""
    if density == "paper":
        return torch.stack([vmf_kernel_log_density(z_BD, rows, kappa) for rows in bank_CND], dim=1)
    return torch.stack([_relative_kernel_mean(z_BD @ rows.T, kappa, k) for rows in bank_CND], dim=1)


def _all_classes(z_BD: Tensor, bank_CND: Tensor, kappa: float, density: Density, k: int) -> Tensor:
    """The same with one product, for devices to which many small ones are slow."""
    similarity = (z_BD @ bank_CND.flatten(0, 1).T).view(len(z_BD), *bank_CND.shape[:2])
    if density == "paper":
        return (kappa * similarity).logsumexp(2)
    return _relative_kernel_mean(similarity.flatten(0, 1), kappa, k).view(len(z_BD), len(bank_CND))


def _relative_kernel_mean(similarity_BN: Tensor, kappa: float, k: int) -> Tensor:
    """mean over the k largest of exp(kappa s) / max exp(kappa s)  [B]."""
    k = min(k, similarity_BN.shape[1])
    if similarity_BN.device.type == "cpu":
        similarity_BN.numpy().partition(similarity_BN.shape[1] - k, axis=1)  # in place: the block is ours
        largest = similarity_BN[:, -k:]
    else:
        largest = similarity_BN.topk(k, dim=1, sorted=False).values
    return (kappa * (largest - largest.amax(1, keepdim=True))).exp_().mean(1)
