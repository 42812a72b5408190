"""GReg's penalty on the gradient of the OOD score (GReg, Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient_penalty(
    id_energy: Tensor, id_inputs: Tensor, ood_energy: Tensor, ood_inputs: Tensor, m_in: float, m_out: float
) -> Tensor:
    """mean_in |1[S <= m_in] grad S| + mean_out |1[S >= m_out] grad S|, S the energy: L2 norms, not squared.

    Only well-detected samples count. Where a sample's energy depends on other samples, too (batch normalisation in
    training mode), its gradient holds what it does to theirs: one differentiation can't tell them apart. As in the
    released code, each side is averaged before that, so that a larger side does not weigh more in it.

    Args:
        id_energy, ood_energy: [B] and [K], with their graph back to the inputs.
        id_inputs, ood_inputs: what the gradient is taken with respect to; a row for each energy.
    """
    counted = (id_energy * (id_energy <= m_in)).mean() + (ood_energy * (ood_energy >= m_out)).mean()
    of_id, of_ood = torch.autograd.grad(counted, (id_inputs, ood_inputs), create_graph=True)
    return norms(of_id).sum() + norms(of_ood).sum()


def norms(gradients: Tensor) -> Tensor:
    """The L2 norm of each sample's gradient [B]; its own gradient is 0 where the norm is."""
    squares = gradients.flatten(1).square().sum(1)
    nonzero = squares > 0
    return torch.where(nonzero, squares.where(nonzero, 1.0).sqrt(), 0.0)
