"""ROC curves of each detector, one line an OOD set."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import FigureKind, colours, tidy
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
        scorers = list(dict.fromkeys(name for run in material.runs for name in run.scores))
        if not scorers:
            return None
        figure = Figure(figsize=(2.7 * len(scorers), 2.6 * len(material.runs) + 0.5), layout="constrained")
        grid = figure.subplots(len(material.runs), len(scorers), squeeze=False, sharex=True, sharey=True)
        palette = colours(material.groups)
        for row, run in zip(grid, material.runs, strict=True):
            row[0].set_ylabel(run.label, fontsize=9)
            for axes, scorer in zip(row, scorers, strict=True):
                axes.set_title(scorer, fontsize=9)
                axes.axhline(0.95, color="0.7", lw=0.8, ls=":")
                axes.axvline(0.05, color="0.7", lw=0.8, ls=":")
                tidy(axes)
                for name, colour in palette.items():
                    if name in run.scores.get(scorer, {}):
                        axes.plot(
                            *roc_curve(run.scores[scorer]["test"], run.scores[scorer][name], self.points),
                            color=colour,
                            lw=1.3,
                            label=name,
                        )
                axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(7, len(labels)), fontsize=8, frameon=False)
        return figure
