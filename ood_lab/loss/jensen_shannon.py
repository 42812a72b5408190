"""How far two sets of energies are apart: Jensen-Shannon divergence of normal distributions (ARES, Eqs. 8 to 11)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Middle = Literal["moments", "average", "quarter"]
FLOOR = 1e-6  # added to each variance, so that energies that are all equal have a divergence and a gradient


def jensen_shannon(id_B: Tensor, outliers_K: Tensor, middle: Middle = "moments", printed: bool = False) -> Tensor:
    """(KL(P || M) + KL(Q || M)) / 2 of normal P and Q with the means and variances of energies [B] and [K].

    KL(P || M) = log(s_M / s_P) + (s_P^2 + (m_P - m_M)^2) / (2 s_M^2) - 1/2, with m_M the mean of the two means. The
    paper leaves s_M^2 open. It is no mixture's divergence, since M is taken as normal, too.

    Args:
        middle: s_M^2 is the variance of the mixture of P and Q, the mean of theirs plus a quarter of the squared gap
            ("moments", for which the value grows with the logarithm of the gap); the mean of the two variances
            ("average"); or a quarter of their sum, the variance of the mean of two independent variables ("quarter").
        printed: Eqs. 8 and 9 as they are printed, where the mean squared deviation is called s, not s^2.
    """
    mean_p, mean_q = id_B.mean(), outliers_K.mean()
    variance_p = (id_B - mean_p).square().mean() + FLOOR
    variance_q = (outliers_K - mean_q).square().mean() + FLOOR
    if printed:
        variance_p, variance_q = variance_p.square(), variance_q.square()
    half_gap = ((mean_p - mean_q) / 2).square()
    total = variance_p + variance_q
    middle_variance = total / 4 if middle == "quarter" else total / 2
    if middle == "moments":
        middle_variance = middle_variance + half_gap
    # The sum of both KL terms; log(s_M / s_P) + log(s_M / s_Q) is half of the logarithm of the variances' ratio.
    logs = middle_variance.log() - 0.5 * (variance_p.log() + variance_q.log())
    return 0.5 * (logs + (total + 2 * half_gap) / (2 * middle_variance) - 1)
