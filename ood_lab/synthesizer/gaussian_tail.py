"""VOS: points of low density under class-conditional Gaussians (Du et al. 2022).

Shape letters: C classes, N bank rows a class, K points a class, D features.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import gammainccinv, gammaincinv, ndtr
from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat, PositiveInt
from ood_lab.synthesizer.base import FromBank, by_class
from ood_lab.types import Outliers

REACH = 9.0  # normal quantiles between which radii are tabled: a tail of 1e-19
NODES = 1024


def tied_gaussian(bank_CND: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Class means [C, D] and L [D, D] with L L' the covariance of the class-centred rows, divided by C N, + ridge I.

    Where rounding in float32 has made it indefinite (rows along few directions), 4e-7 of the trace are added to the
    ridge, which is more than that rounding.
    """
    means = bank_CND.mean(1)
    centred = (bank_CND - means[:, None]).flatten(0, 1)
    covariance = (centred.T @ centred).double() / len(centred)
    diagonal = covariance.diagonal()
    diagonal += ridge
    factor, failed = torch.linalg.cholesky_ex(covariance)
    diagonal += 4e-7 * diagonal.sum()
    # Chosen on the device: asking whether it failed would wait for it.
    return means, torch.where(failed == 0, factor, torch.linalg.cholesky_ex(covariance).L).to(bank_CND)


def largest_radii(uniform_CK: Tensor, draws: int, dim: int) -> Tensor:
    """The K largest of `draws` norms of N(0, I) vectors, in falling order [C, K]: exact in law.

    The largest of M uniform numbers is V^(1/M); below it lie M - 1 uniform numbers, and so on. Norms follow from these
    by the quantile function of the chi distribution.

    Args:
        uniform_CK: V, in (0, 1).
        draws: M, at least K.
    """
    remaining = draws - torch.arange(uniform_CK.shape[1], device=uniform_CK.device)
    log_level = (uniform_CK.double().log() / remaining).cumsum(1)
    return chi_quantile(-torch.special.ndtri(-torch.expm1(log_level)), dim).to(uniform_CK)


def chi_quantile(normal: Tensor, dim: int) -> Tensor:
    """The quantile of the chi distribution with `dim` degrees of freedom at the level of a normal quantile.

    As a function of the normal quantile it is close to a line, so that cubic interpolation between the nodes of a table
    is exact to 1e-8 (and needs no iteration, and does not wait for the device).
    """
    values, slopes = _chi_table(dim, normal.device)
    place = ((normal + REACH) * ((NODES - 1) / (2 * REACH))).clamp(0, NODES - 1 - 1e-9)
    left = place.long()
    t = place - left
    a, b, da, db = values[left], values[left + 1], slopes[left], slopes[left + 1]
    return a + t * (da + t * (3 * (b - a) - 2 * da - db + t * (da + db - 2 * (b - a))))


@cache  # a copy from the host waits for the device
def _chi_table(dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Quantiles at the nodes, and their slopes from node to node."""
    normal = np.linspace(-REACH, REACH, NODES)
    low, high = gammaincinv(dim / 2, ndtr(normal)), gammainccinv(dim / 2, ndtr(-normal))  # each exact on its side
    radius = np.sqrt(2 * np.where(normal < 0, low, high))
    log_density = (dim - 1) * np.log(radius) - radius**2 / 2 - (dim / 2 - 1) * math.log(2) - math.lgamma(dim / 2)
    slope = np.exp(-(normal**2) / 2 - math.log(2 * math.pi) / 2 - log_density)
    return torch.from_numpy(radius).to(device), torch.from_numpy(slope * (normal[1] - normal[0])).to(device)


def tail_points(
    bank_CND: Tensor, *, directions_CKD: Tensor, uniform_CK: Tensor, draws: int, ridge: float = 1e-4
) -> Tensor:
    """Of `draws` points of N(mu_c, S) for each class the K of lowest density [C, K, D], exact in law.

    S is one covariance for all classes, so that the density falls with the radius |L^-1 (x - mu_c)|, a chi variable
    independent of the direction. VOS draws them all and sorts.

    Args:
        bank_CND: features.
        directions_CKD: standard normal numbers.
        uniform_CK: in (0, 1), see `largest_radii`.
        ridge: added to the covariance's diagonal.
    """
    means, factor = tied_gaussian(bank_CND, ridge)
    radii = largest_radii(uniform_CK, draws, bank_CND.shape[2]).to(bank_CND)
    scale = radii / directions_CKD.norm(dim=2)
    return torch.addcmul(means[:, None], directions_CKD @ factor.T, scale[:, :, None])


class GaussianTail(FromBank):
    """For each class the points of lowest density among draws from its Gaussian, in penultimate space.

    The public codes draw all `draws` points and keep one a class; HamOS keeps 200 of VOS's a class.

    Args:
        per_class: K, points kept of each class.
        draws: M, of which they are the least likely; at least K.
        ridge: see `tail_points`.
        bank: see `FromBank`.
    """

    space: ClassVar[str] = "penultimate"
    at_most: ClassVar = (("per_class", "draws"),)

    def __init__(self, *, per_class: PositiveInt, draws: PositiveInt, ridge: NonNegativeFloat, **bank: Any) -> None:
        super().__init__(**bank)
        self.per_class, self.draws, self.ridge = per_class, draws, ridge

    def tail(self, bank_CND: Tensor, generator: torch.Generator) -> Tensor:
        """The points [C, K, D]."""
        shape = (len(bank_CND), self.per_class, bank_CND.shape[2])
        directions = torch.randn(shape, generator=generator, device=generator.device).to(bank_CND)
        uniform = torch.rand(shape[:2], generator=generator, device=generator.device, dtype=torch.float64)
        return tail_points(
            bank_CND, directions_CKD=directions, uniform_CK=1 - uniform, draws=self.draws, ridge=self.ridge
        )

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        return by_class(self.tail(bank_CND, generator))
