"""Histograms of each detector's scores on ID and OOD images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import ID_COLOUR, FigureKind, colours, tidy
from ood_lab.results.material import Material


class ScoreHistogram(FigureKind):
    """A panel for each run and detector: ID filled, each OOD set a line, as densities over the same bins.

    Args:
        bins: between the 0.5th and 99.5th percentile of the panel's scores.
    """

    title = "Scores"
    caption = (
        "Score densities (higher = more OOD). A detector separates well where the filled ID histogram and the lines "
        "of the OOD sets share little ground."
    )

    def __init__(self, *, bins: PositiveInt) -> None:
        self.bins = bins

    def draw(self, material: Material) -> Figure | None:
        scorers = list(dict.fromkeys(name for run in material.runs for name in run.scores))
        if not scorers:
            return None
        figure = Figure(figsize=(3.1 * len(scorers), 2.3 * len(material.runs) + 0.5), layout="constrained")
        grid = figure.subplots(len(material.runs), len(scorers), squeeze=False)
        palette = colours(material.groups)
        for row, run in zip(grid, material.runs, strict=True):
            row[0].set_ylabel(run.label, fontsize=9)
            for axes, scorer in zip(row, scorers, strict=True):
                axes.set_title(scorer, fontsize=9)
                axes.set_yticks([])
                tidy(axes)
                scores = run.scores.get(scorer)
                if scores is None:
                    continue
                low, high = np.percentile(np.concatenate(list(scores.values())), [0.5, 99.5])
                edges = np.linspace(low, high if high > low else low + 1, self.bins + 1)
                axes.hist(scores["test"], edges, density=True, color=ID_COLOUR, alpha=0.45, label="ID test")
                for name, colour in palette.items():
                    if name in scores:
                        axes.hist(scores[name], edges, density=True, histtype="step", color=colour, lw=1.3, label=name)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(7, len(labels)), fontsize=8, frameon=False)
        return figure
