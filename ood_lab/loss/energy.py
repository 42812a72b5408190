"""The energy of logits, and the margins that training with outliers sets for it (Liu et al. 2020; GReg, Eq. 1)."""

from __future__ import annotations

from torch import Tensor


def energy(logits: Tensor) -> Tensor:
    """S = -log sum_c exp(f_c) of logits [B, C]: [B], lower for ID images."""
    return -logits.logsumexp(1)


def energy_margin(id_energy: Tensor, ood_energy: Tensor, m_in: float, m_out: float) -> Tensor:
    """mean_in max(0, S - m_in)^2 + mean_out max(0, m_out - S)^2: only images on the wrong side of a margin count.

    Source: Liu et al. 2020; GReg, Eq. 1.

    Args:
        id_energy, ood_energy: [B] and [K].
        m_in, m_out: ID energies are pushed below the first, those of outliers above the second.
    """
    return (id_energy - m_in).relu().square().mean() + (m_out - ood_energy).relu().square().mean()
