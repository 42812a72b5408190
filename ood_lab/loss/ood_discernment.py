"""HamOS's OOD-discernment loss in its readings. Shape letters: K outliers, B ID rows, C classes, D dimensions.

The paper's Eq. 7 minimises the mean log-probability of being assigned to a class; as printed, its minimum puts an
outlier *onto* a prototype. The released code has another form. docs/FIDELITY.md compares them.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def equidistant(z_KD: Tensor, prototypes_CD: Tensor, temperature: float) -> Tensor:
    """-1/K sum_i 1/C sum_j log softmax_j(-z_i . mu_j / tau): least, log C, where all cosines are equal.

    The form of the released code, without its factor tau / 0.07.
    """
    return -(-z_KD @ prototypes_CD.T / temperature).log_softmax(1).mean()


def paper_eq7(z_KD: Tensor, prototypes_CD: Tensor, temperature: float) -> Tensor:
    """1/K sum_i 1/C sum_j log softmax_j(z_i . mu_j / tau): HamOS, Eq. 7 as printed."""
    return (z_KD @ prototypes_CD.T / temperature).log_softmax(1).mean()


def negatives(z_BD: Tensor, labels_B: Tensor, z_KD: Tensor, prototypes_CD: Tensor, temperature: float) -> Tensor:
    """-1/B sum_i log e^{z_i.mu_y} / (e^{z_i.mu_y} + sum_k e^{z_i.o_k}) at tau: outliers as negatives of each row."""
    positive = (z_BD * prototypes_CD[labels_B]).sum(1) / temperature
    rest = (z_BD @ z_KD.T / temperature).logsumexp(1)
    return F.softplus(rest - positive).mean()
