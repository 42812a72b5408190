"""ROC curves of each detector, one line an OOD set."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import FigureKind, colours, score_panels, shared_legend
from ood_lab.results.material import Array, Material


def roc_curve(id_scores: Array, ood_scores: Array, points: int) -> tuple[Array, Array]:
    """Share of ID flagged and of OOD caught at `points` thresholds spread evenly over the ranks of all scores."""
    ordered = np.sort(np.concatenate([id_scores, ood_scores]))[::-1]
    thresholds = ordered[np.linspace(0, len(ordered) - 1, points).astype(int)]
    flagged = 1 - np.searchsorted(np.sort(id_scores), thresholds) / len(id_scores)
    caught = 1 - np.searchsorted(np.sort(ood_scores), thresholds) / len(ood_scores)
    return np.append(0, flagged), np.append(0, caught)


class ROC(FigureKind):
    """A panel for each run and detector.

    Args:
        points: thresholds a curve.
    """

    title = "ROC curves"
    caption = (
        "Share of OOD images caught (up) against ID images flagged (right), OOD as the positive class. The dotted "
        "lines mark 95 % of OOD caught, where FPR95 (OOD+) is read, and 5 % of ID flagged, where FPR95 (ID+) is."
    )

    def __init__(self, *, points: PositiveInt) -> None:
        self.points = points

    def draw(self, material: Material) -> Figure | None:
        grid = score_panels(material, (2.7, 2.6), sharex=True, sharey=True)
        if grid is None:
            return None
        figure, panels = grid
        for axes, scores in panels:
            axes.axhline(0.95, color="0.7", lw=0.8, ls=":")
            axes.axvline(0.05, color="0.7", lw=0.8, ls=":")
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
            for name, colour in colours(material.groups).items():
                if name in scores:
                    curve = roc_curve(scores["test"], scores[name], self.points)
                    axes.plot(*curve, color=colour, lw=1.3, label=name)
        shared_legend(figure)
        return figure
