"""The hinge losses of adversarial training (Lim & Ye 2017; BigGAN)."""

from __future__ import annotations

from torch import Tensor


def discriminator_hinge(real_B: Tensor, made_B: Tensor) -> Tensor:
    """mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z))), of scores of real and of made images."""
    return (1 - real_B).relu().mean() + (1 + made_B).relu().mean()


def generator_hinge(made_B: Tensor) -> Tensor:
    """-mean D(G(z))."""
    return -made_B.mean()
