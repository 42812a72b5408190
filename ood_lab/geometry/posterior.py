"""Bayesian linear regression: the posterior of the weights, and draws from it.

Shape letters: D dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """N(mean, covariance) of the weights, by the lower Cholesky factor of its precision."""

    mean: Tensor  # [D]
    precision_factor: Tensor  # [D, D]

    def draw(self, normal_D: Tensor, widening: float = 1.0) -> Tensor:
        """A draw of the weights [D] from standard normal numbers.

        Args:
            widening: factor of the covariance.
        """
        # With A = L L^T, L^-T n has the covariance A^-1.
        offset = torch.linalg.solve_triangular(self.precision_factor.mT, normal_D[:, None], upper=True)
        return self.mean + widening**0.5 * offset.squeeze(1)


def posterior(gram_DD: Tensor, moment_D: Tensor, prior: float, noise: float) -> Posterior:
    """The posterior of w in y = w z + N(0, noise), w ~ N(0, prior I): precision A = Z^T Z / noise + I / prior.

    Source: POEM (Ming et al. 2022).

    Args:
        gram_DD: Z^T Z, in float64.
        moment_D: Z^T y.
        prior, noise: variances.
    """
    identity = torch.eye(len(gram_DD), dtype=gram_DD.dtype, device=gram_DD.device)
    factor = torch.linalg.cholesky(gram_DD / noise + identity / prior)
    return Posterior(torch.cholesky_solve(moment_D[:, None] / noise, factor).squeeze(1), factor)
