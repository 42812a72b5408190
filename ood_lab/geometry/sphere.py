"""Geometry and von Mises-Fisher densities on the unit sphere. Shape letters: B points, D dimensions, N centres."""

from __future__ import annotations

import math

import torch
from scipy.special import ive
from torch import Tensor
from torch.nn import functional as F

# exp(+-40) and sums of a million of them are far inside float32's range, so that no shift is needed up to there.
LARGEST_SAFE_KAPPA = 40.0
SMALLEST_EXACT = 1e-280  # below, scipy's scaled Bessel function loses digits to underflow


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
    """log Z_d(kappa) = (d/2 - 1) log kappa - (d/2) log 2 pi - log I_{d/2-1}(kappa) (HamOS, Eq. 10)."""
    order = dim / 2 - 1
    return order * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - log_bessel_i(order, kappa)


def log_bessel_i(order: float, x: float) -> float:
    """log I_v(x). Where the function underflows (large v) by Debye's expansion to 1/v^3 (NIST DLMF 10.41.3)."""
    scaled = float(ive(order, x))
    if scaled > SMALLEST_EXACT:
        return math.log(scaled) + x
    root = math.hypot(1, x / order)
    t = 1 / root
    eta = root + math.log(x / order / (1 + root))
    u1 = (3 * t - 5 * t**3) / 24
    u2 = (81 * t**2 - 462 * t**4 + 385 * t**6) / 1152
    u3 = (30375 * t**3 - 369603 * t**5 + 765765 * t**7 - 425425 * t**9) / 414720
    leading = order * eta - math.log(2 * math.pi * order) / 2 - math.log(root) / 2
    return leading + math.log1p(u1 / order + u2 / order**2 + u3 / order**3)


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
