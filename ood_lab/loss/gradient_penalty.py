"""GReg's penalty on the gradient of the OOD score with respect to the input (GReg, Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient_penalty(
    id_energy: Tensor, id_images: Tensor, ood_energy: Tensor, ood_images: Tensor, m_in: float, m_out: float
) -> Tensor:
    """mean_in |1[S <= m_in] grad S| + mean_out |1[S >= m_out] grad S|, S the energy: L2 norms, not squared.

    Only well-detected samples count. With batch normalisation in training mode a sample's gradient holds what it does
    to the scores of its neighbours, too; one pass can't tell them apart.

    Args:
        id_energy, ood_energy: [B] and [K], with their graph back to the images.
        id_images, ood_images: normalised, requiring gradients.
    """
    counted = (id_energy * (id_energy <= m_in)).sum() + (ood_energy * (ood_energy >= m_out)).sum()
    of_id, of_ood = torch.autograd.grad(counted, (id_images, ood_images), create_graph=True)
    return _norms(of_id).mean() + _norms(of_ood).mean()


def _norms(gradients: Tensor) -> Tensor:
    """The norm of each sample's gradient; its own gradient is 0 where the norm is."""
    squares = gradients.flatten(1).square().sum(1)
    nonzero = squares > 0
    return torch.where(nonzero, squares.where(nonzero, 1.0).sqrt(), 0.0)
