"""The losses of adversarial training by probabilities (Goodfellow et al. 2014), for logits of being real."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real_B: Tensor, made_B: Tensor) -> Tensor:
    """-mean log D(x) - mean log(1 - D(G(z)))."""
    return softplus(-real_B).mean() + softplus(made_B).mean()


def generator_loss(made_B: Tensor) -> Tensor:
    """-mean log D(G(z)), which does not saturate."""
    return softplus(-made_B).mean()
