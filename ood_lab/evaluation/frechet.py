"""How far two sets of features are apart, each taken as a normal distribution (Heusel et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first_ND: Tensor, second_MD: Tensor) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of the rows' means and covariances, in float64.

    The formula of FID. Its numbers are those of the features that are given: of a classifier of our own they say
    nothing beside published ones, which are of one Inception network.

    Raises:
        ValueError: fewer than two rows.
    """
    if min(len(first_ND), len(second_MD)) < 2:
        raise ValueError(f"{len(first_ND)} and {len(second_MD)} rows: two at least make a covariance")
    (mean_1, factor_1), (mean_2, factor_2) = (_moments(rows.double()) for rows in (first_ND, second_MD))
    # With C = A'A the trace of (C_1 C_2)^(1/2) is the sum of the singular values of A_1 A_2'.
    cross = torch.linalg.svdvals(factor_1 @ factor_2.T).sum()
    spread = factor_1.square().sum() + factor_2.square().sum() - 2 * cross
    return max(0.0, float((mean_1 - mean_2).square().sum() + spread))


def _moments(rows_ND: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and A with A'A the covariance."""
    mean = rows_ND.mean(0)
    factor = (rows_ND - mean) / (len(rows_ND) - 1) ** 0.5
    return mean, torch.linalg.qr(factor, mode="r").R if len(rows_ND) > rows_ND.shape[1] else factor
