"""Geometry and von Mises-Fisher densities on the unit sphere. Shape letters: B points, D dimensions, N centres."""

from __future__ import annotations

import math

import torch
from scipy.special import ive
from torch import Tensor
from torch.nn import functional as F

# exp(+-40) and sums of a million of them are far inside float32's range, so that no shift is needed up to there.
LARGEST_SAFE_KAPPA = 40.0


def project_to_tangent(z_BD: Tensor, v_BD: Tensor) -> Tensor:
    """(I - z z') v: the part of v that is tangent to the sphere at z (HamOS, Eq. 3), by one dot product."""
    return v_BD - (z_BD * v_BD).sum(-1, keepdim=True) * z_BD


def geodesic_step(z_BD: Tensor, q_BD: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Follow the great circle from z with velocity q for a time `step` (HamOS, Eq. 3, lines 2 and 3).

    z' = z cos(|q| step) + q/|q| sin(|q| step),   q' = -z |q| sin(|q| step) + q cos(|q| step).

    Returns:
        position (re-normalised against rounding) and the transported velocity, tangent at z' and as long as q.
    """
    speed = q_BD.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(q_BD.dtype).tiny)
    angle = speed * step
    cos, sin = angle.cos(), angle.sin()
    moved = z_BD * cos + (q_BD / speed) * sin
    return F.normalize(moved, dim=-1), q_BD * cos - z_BD * (speed * sin)


def log_vmf_normaliser(dim: int, kappa: float) -> float:
    """log Z_d(kappa) = (d/2 - 1) log kappa - (d/2) log 2 pi - log I_{d/2-1}(kappa) (HamOS, Eq. 10).

    For d = 128 and a small kappa, I_{d/2-1} underflows; then its first series term is used, exact to kappa^2 / 2d.
    """
    order = dim / 2 - 1
    scaled = float(ive(order, kappa))
    log_bessel = (
        math.log(scaled) + kappa
        if scaled > 0
        else order * math.log(kappa / 2) - math.lgamma(order + 1) + kappa**2 / (4 * (order + 1))
    )
    return order * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - log_bessel


def vmf_kernel_log_density(z_BD: Tensor, centres_ND: Tensor, kappa: float) -> Tensor:
    """log 1/N sum_i exp(kappa z . x_i) [B]: the vMF kernel estimate (HamOS, Eq. 11) without log Z_d(kappa).

    The normaliser is the same for every class and cancels in Eq. 12.
    """
    exponent = (kappa * z_BD) @ centres_ND.T
    if kappa <= LARGEST_SAFE_KAPPA:
        return exponent.exp_().mean(1).log_()
    high = exponent.amax(1, keepdim=True)
    return exponent.sub_(high).exp_().mean(1).log_().add_(high.squeeze(1))


def uniform_on_sphere(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform points on the sphere of the last dimension."""
    return F.normalize(torch.randn(shape, generator=generator, device=generator.device), dim=-1)
