"""PALM's mixture of prototypes (Lu et al. 2024). Shape letters: N rows, P prototypes, C classes, D dimensions.

Prototype p belongs to class p mod C.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.loss.supcon import supcon


def log_assignments(similarity_NP: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """log Q [N, P] of Sinkhorn's soft assignments: rows of sum 1 that spread the batch evenly over all prototypes.

    Q = e^{s / epsilon}, then in turns columns and rows are divided by their sums; in logarithms, since PALM's code
    loses rows to underflow where epsilon is small.
    """
    log_q = similarity_NP / epsilon
    for _ in range(iterations):
        log_q = log_q.log_softmax(0).log_softmax(1)
    return log_q


def own_class(labels_N: Tensor, prototypes: int, classes: int) -> Tensor:
    """Whether a prototype belongs to a row's class [N, P]."""
    return labels_N[:, None] == torch.arange(prototypes, device=labels_N.device) % classes


def strongest(log_q_NP: Tensor, own_NP: Tensor, top_k: int) -> Tensor:
    """Of the row's own prototypes the `top_k` with the largest assignments, as a mask [N, P]."""
    places = log_q_NP.masked_fill(~own_NP, -torch.inf).topk(top_k, dim=1).indices
    return own_NP & torch.zeros_like(own_NP).scatter(1, places, True)


def move_prototypes(
    prototypes_PD: Tensor,
    z_ND: Tensor,
    labels_N: Tensor,
    classes: int,
    *,
    momentum: float,
    epsilon: float,
    top_k: int,
) -> Tensor:
    """mu_p <- normalise(m mu_p + (1 - m) sum_i w_ip z_i); the graph runs through z.

    w: a row's assignments to the `top_k` strongest prototypes of its class, of sum 1 for each row, then for each
    prototype; a prototype to which no row is assigned stays.
    """
    log_q = log_assignments(z_ND.detach() @ prototypes_PD.T, epsilon)
    counted = strongest(log_q, own_class(labels_N, len(prototypes_PD), classes), top_k)
    taken = counted.any(0)
    of_row = log_q.masked_fill(~counted, -torch.inf).log_softmax(1)
    weights = torch.where(taken, of_row.softmax(0), 0.0)
    moved = F.normalize(momentum * prototypes_PD + (1 - momentum) * weights.T @ z_ND, dim=1)
    return torch.where(taken[:, None], moved, prototypes_PD)


def likelihood(
    z_ND: Tensor,
    labels_N: Tensor,
    before_PD: Tensor,
    prototypes_PD: Tensor,
    classes: int,
    *,
    temperature: float,
    epsilon: float,
    top_k: int,
) -> Tensor:
    """log sum_p e^{z_i.mu_p/tau} - sum_p w_ip z_i.mu_p/tau of each row [N] (PALM's MLE term, before the mean).

    w are the assignments to the moved prototypes; which `top_k` of the class count is decided by those before they
    moved, as in PALM's code.
    """
    rows = z_ND.detach()
    own = own_class(labels_N, len(prototypes_PD), classes)
    counted = strongest(log_assignments(rows @ before_PD.T, epsilon), own, top_k)
    log_q = log_assignments(rows @ prototypes_PD.T, epsilon)
    weights = log_q.masked_fill(~counted, -torch.inf).softmax(1)
    logits = z_ND @ prototypes_PD.T / temperature
    return logits.logsumexp(1) - (weights * logits).sum(1)


def prototype_contrast(prototypes_PD: Tensor, classes: int, temperature: float) -> Tensor:
    """SupCon among prototypes: those of a class attract one another; 0.5 is PALM's temperature."""
    count = len(prototypes_PD)
    places = torch.arange(count, device=prototypes_PD.device)
    return supcon(prototypes_PD, prototypes_PD, places, places % classes, temperature)
