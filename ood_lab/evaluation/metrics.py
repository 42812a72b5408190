"""OOD metrics from scores (higher = more OOD), all from one sort."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RECALL = 0.95


def ood_metrics(id_scores: Any, ood_scores: Any, fpr_rule: Literal["first", "nearest"] = "first") -> dict[str, float]:
    """AUROC, AUPR and FPR95 of a detector, as fractions.

    - `auroc`: P(OOD score > ID score), ties counted half.
    - `aupr_in`, `aupr_out`: area under precision over recall by trapezoid (OpenOOD's), with ID or OOD as positive.
    - `fpr95_ood_pos`: share of ID images flagged where at least 95 % of OOD images are (OpenOOD since August 2023).
    - `fpr95_id_pos`: share of OOD images accepted where at least 95 % of ID images are (the classic convention).

    Args:
        id_scores: [N] scores of ID images.
        ood_scores: [M] scores of OOD images.
        fpr_rule: "first" takes the first threshold that reaches 95 %; "nearest" the one nearest to it, the larger on
            a tie (Hendrycks et al.).

    Raises:
        ValueError: a side is empty or holds NaN.
    """
    groups = []
    for name, scores in (("id_scores", id_scores), ("ood_scores", ood_scores)):
        array = np.asarray(scores).reshape(-1)
        if array.size == 0:
            raise ValueError(f"{name} is empty; expected at least one score")
        if np.isnan(array).any():
            raise ValueError(f"{name} holds {int(np.isnan(array).sum())} NaN; a detector must give numbers")
        groups.append(array)
    scores = np.concatenate(groups)
    order = np.argsort(scores, kind="stable")
    scores, is_ood = scores[order], order >= groups[0].size
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), scores.size - 1)
    n_id, n_ood = float(groups[0].size), float(groups[1].size)
    # Counts at each distinct score: at or below it from the lowest up, at or above it from the highest down.
    ood_below = np.cumsum(is_ood)[last].astype(np.float64)
    id_below = last + 1 - ood_below
    ood_above = (n_ood - np.concatenate(([0.0], ood_below[:-1])))[::-1]
    id_above = (n_id - np.concatenate(([0.0], id_below[:-1])))[::-1]
    return {
        "auroc": float(np.trapezoid(np.append(0.0, ood_above), np.append(0.0, id_above)) / (n_id * n_ood)),
        "aupr_in": _aupr(id_below, ood_below),
        "aupr_out": _aupr(ood_above, id_above),
        "fpr95_ood_pos": _fpr(ood_above / n_ood, id_above / n_id, fpr_rule),
        "fpr95_id_pos": _fpr(id_below / n_id, ood_below / n_ood, fpr_rule),
    }


def _aupr(true: NDArray[np.float64], false: NDArray[np.float64]) -> float:
    """Trapezoid over (recall, precision) from counts, beginning at recall 0 with precision 1 (scikit-learn's curve)."""
    recall = np.append(0.0, true / true[-1])
    precision = np.append(1.0, true / (true + false))
    return float(np.trapezoid(precision, recall))


def _fpr(recall: NDArray[np.float64], fpr: NDArray[np.float64], rule: str) -> float:
    """The false-positive rate where recall (ascending) reaches 95 %."""
    if rule == "first":
        return float(fpr[np.argmax(recall >= RECALL)])
    # Hendrycks et al. cut the curve where recall is first complete.
    recall = recall[: np.argmax(recall == 1) + 1]
    gap = np.abs(recall - RECALL)
    return float(fpr[np.flatnonzero(gap == gap.min())[-1]])
