"""OOD metrics from scores (higher = more OOD), all from one sort, and their confidence intervals."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

RECALL = 0.95
CONFIDENCE = 0.95
Counts = NDArray[np.float64]


def ood_metrics(
    id_scores: Any,
    ood_scores: Any,
    fpr_rule: Literal["first", "nearest"] = "first",
    aupr_rule: Literal["trapezoid", "average_precision"] = "trapezoid",
) -> dict[str, float]:
    """AUROC, AUPR and FPR95 of a detector, as fractions.

    - `auroc`: P(OOD score > ID score), ties counted half.
    - `aupr_in`, `aupr_out`: area under precision over recall, with ID or OOD as positive.
    - `fpr95_ood_pos`: share of ID images flagged where at least 95 % of OOD images are (OpenOOD since August 2023).
    - `fpr95_id_pos`: share of OOD images accepted where at least 95 % of ID images are (the classic convention).

    Args:
        id_scores: [N] scores of ID images.
        ood_scores: [M] scores of OOD images.
        fpr_rule: "first" takes the first threshold that reaches 95 %; "nearest" the one nearest to it, the larger on
            a tie (Hendrycks et al.).
        aupr_rule: "trapezoid" (OpenOOD) or "average_precision", the sum of steps (Hendrycks et al., GReg).

    Raises:
        ValueError: a side is empty or holds NaN.
    """
    counts = _count(id_scores, ood_scores)
    return _metrics(counts.id, counts.ood, fpr_rule, aupr_rule)


def intervals(
    id_scores: Any,
    ood_scores: Any,
    draws: int,
    draw: np.random.Generator,
    fpr_rule: Literal["first", "nearest"] = "first",
    aupr_rule: Literal["trapezoid", "average_precision"] = "trapezoid",
) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals (low, high) of each metric; ID and OOD images are drawn each for themselves.

    They say how far the choice of test images moves a number, not how far training does.

    Raises:
        ValueError: see `ood_metrics`.
    """
    counts = _count(id_scores, ood_scores)
    drawn = []
    for _ in range(draws):
        n_id, n_ood = (
            np.bincount(rank[draw.integers(len(rank), size=len(rank))], minlength=len(counts.id)).astype(np.float64)
            for rank in (counts.id_rank, counts.ood_rank)
        )
        drawn.append(_metrics(n_id, n_ood, fpr_rule, aupr_rule))
    tails = 100 * np.array([1 - CONFIDENCE, 1 + CONFIDENCE]) / 2
    found = {name: np.percentile([metrics[name] for metrics in drawn], tails) for name in drawn[0]}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


class _Counts(NamedTuple):
    """How many ID and OOD images have each distinct score, ascending [K]; and the place of each image's score there."""

    id: Counts
    ood: Counts
    id_rank: NDArray[np.int64]
    ood_rank: NDArray[np.int64]


def _count(id_scores: Any, ood_scores: Any) -> _Counts:
    groups = []
    for name, side in (("id_scores", id_scores), ("ood_scores", ood_scores)):
        array = np.asarray(side).reshape(-1)
        if array.size == 0:
            raise ValueError(f"{name} is empty; expected at least one score")
        if np.isnan(array).any():
            raise ValueError(f"{name} holds {int(np.isnan(array).sum())} NaN; a detector must give numbers")
        groups.append(array)
    scores = np.concatenate(groups)
    order = np.argsort(scores)
    scores = scores[order]
    ranks = np.empty(scores.size, np.int64)
    ranks[order] = np.append(0, np.cumsum(scores[1:] != scores[:-1]))
    ids, oods = ranks[: groups[0].size], ranks[groups[0].size :]
    distinct = int(ranks[order[-1]]) + 1
    n_id, n_ood = (np.bincount(side, minlength=distinct).astype(np.float64) for side in (ids, oods))
    return _Counts(n_id, n_ood, ids, oods)


def _metrics(ids: Counts, oods: Counts, fpr_rule: str, aupr_rule: str) -> dict[str, float]:
    """All metrics from the counts at each distinct score, ascending."""
    # At or below each score from the lowest up, at or above it from the highest down.
    id_below, ood_below = np.cumsum(ids), np.cumsum(oods)
    id_above, ood_above = np.cumsum(ids[::-1]), np.cumsum(oods[::-1])
    n_id, n_ood = id_below[-1], ood_below[-1]
    return {
        "auroc": float(np.trapezoid(np.append(0.0, ood_above), np.append(0.0, id_above)) / (n_id * n_ood)),
        "aupr_in": _aupr(id_below, ood_below, aupr_rule),
        "aupr_out": _aupr(ood_above, id_above, aupr_rule),
        "fpr95_ood_pos": _fpr(ood_above / n_ood, id_above / n_id, fpr_rule),
        "fpr95_id_pos": _fpr(id_below / n_id, ood_below / n_ood, fpr_rule),
    }


def _aupr(true: Counts, false: Counts, rule: str) -> float:
    """Area under precision over recall from counts; the trapezoid begins at recall 0, precision 1 (scikit-learn's)."""
    flagged = true + false
    counted = flagged > 0  # in a bootstrap draw a score may have no image
    recall = np.append(0.0, true[counted] / true[-1])
    precision = true[counted] / flagged[counted]
    if rule == "trapezoid":
        return float(np.trapezoid(np.append(1.0, precision), recall))
    return float((np.diff(recall) * precision).sum())


def _fpr(recall: Counts, fpr: Counts, rule: str) -> float:
    """The false-positive rate where recall (ascending) reaches 95 %."""
    if rule == "first":
        return float(fpr[np.argmax(recall >= RECALL)])
    # Hendrycks et al. cut the curve where recall is first complete.
    recall = recall[: np.argmax(recall == 1) + 1]
    gap = np.abs(recall - RECALL)
    return float(fpr[np.flatnonzero(gap == gap.min())[-1]])
