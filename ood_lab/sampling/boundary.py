"""How far embeddings are from a decision boundary, and points across it (BOOD, Eqs. 3 to 5).

Shape letters: N embeddings, D numbers, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ood_lab.loss.anchors import ascent_direction
from ood_lab.progress import Meter

ROWS = 1024  # that are walked together: their embeddings stay in the processor's cache


@dataclass(frozen=True)
class AnchorClassifier:
    """argmax_c <h / |h|, Gamma_c>, with the loss of its logits over a temperature.

    Args:
        anchors: [C, D], of unit norm where the classifier compares cosines.
        temperature: t.
    """

    anchors: Tensor
    temperature: float

    def logits(self, h_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The logits [N, C], and the norms of the embeddings [N]."""
        norms_N = torch.linalg.vector_norm(h_ND, dim=1).clamp_min(torch.finfo(h_ND.dtype).tiny)
        return (h_ND @ self.anchors.T).div_(norms_N[:, None]).div_(self.temperature), norms_N


@dataclass(frozen=True)
class Walk:
    """Where embeddings came that were walked up the loss of their own class.

    An exact tie with another class counts as not switched.

    Args:
        counts: k [N], steps until the prediction switched; 0 for those that are misclassified from the start, K for
            those that never are.
        distances: [N], k less what the last step went too far, by the margins before and behind it: tells embeddings
            of one count apart, between k - 1 and k.
        crossed: whether the prediction switched, bool [N].
        points: where they came to rest [N, D], `further` steps behind the boundary.
    """

    counts: Tensor
    distances: Tensor
    crossed: Tensor
    points: Tensor | None


def walk(
    h_ND: Tensor,
    labels_N: Tensor,
    classifier: AnchorClassifier,
    *,
    step: float,
    max_steps: int,
    further: int = 0,
    keep_points: bool = True,
    rows: int = ROWS,
) -> Walk:
    """Walk every embedding by h <- h + step sign(dl/dh) until its class is no longer predicted; then `further` steps.

    The gradient is in closed form, `rows` embeddings are walked at a time, and those that have arrived are left out of
    the products: what it costs is two products with the anchors a step.

    Args:
        step: alpha.
        max_steps: K, before the boundary.
        further: c, behind it; 0 for none.
        keep_points: whether the points are given.
    """
    blocks = [slice(start, start + rows) for start in range(0, max(1, len(h_ND)), rows)]
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with Meter("boundary search", len(h_ND)) as meter:
        for block in blocks:
            made = _walk_block(h_ND[block], labels_N[block], classifier, step, max_steps, further)
            found.append(made if keep_points else (*made[:3], made[3][:0]))
            meter.advance(len(h_ND[block]))
    counts, distances, crossed, points = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Walk(counts, distances, crossed, points if keep_points else None)


def _walk_block(
    h_ND: Tensor, labels_N: Tensor, classifier: AnchorClassifier, step: float, max_steps: int, further: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h, labels = h_ND.clone(), labels_N
    points_ND = torch.empty_like(h)
    counts_N = torch.full_like(labels, max_steps)
    distances_N = torch.full((len(h),), float(max_steps), dtype=h.dtype, device=h.device)
    crossed_N = torch.zeros(len(h), dtype=torch.bool, device=h.device)
    here = torch.arange(len(h), device=h.device)  # the rows that are still on their way
    left = torch.full_like(labels, -1)  # their steps behind the boundary that are still to be taken; -1 before it
    before = torch.zeros_like(distances_N)
    for taken in range(max_steps + further + 1):
        logits, norms = classifier.logits(h)
        margins = _margins(logits, labels)
        arrives = (margins < 0) & (left < 0)
        if arrives.any() and taken <= max_steps:
            rows = here[arrives]
            counts_N[rows], crossed_N[rows] = taken, True
            overshoot = margins[arrives].neg()
            reached = before[arrives] / (before[arrives] + overshoot)
            distances_N[rows] = taken - 1 + reached if taken else 0.0
            left = torch.where(arrives, further, left)
        if taken >= max_steps:
            left = torch.where(left < 0, 0, left)  # those that never cross
        resting = left == 0
        if resting.any():
            points_ND[here[resting]] = h[resting]
            on = ~resting
            h, labels, here, left = h[on], labels[on], here[on], left[on]
            logits, norms, margins = logits[on], norms[on], margins[on]
        if not len(here):
            break
        direction = ascent_direction(h, norms, logits, labels, classifier.anchors, classifier.temperature)
        h.add_(direction.sign_(), alpha=step)
        left -= (left > 0).to(left.dtype)
        before = margins
    return counts_N, distances_N, crossed_N, points_ND


def _margins(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Logit of the own class less the highest of the others [N]; below zero another one is predicted."""
    own = logits_NC.gather(1, labels_N[:, None])
    others = logits_NC.scatter(1, labels_N[:, None], -torch.inf)
    return (own - others.amax(1, keepdim=True)).squeeze(1)
