"""Histograms of each detector's scores on ID and OOD images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import ID_COLOUR, FigureKind, colours, legend_below, score_panels
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
        grid = score_panels(material, (3.1, 2.3))
        if grid is None:
            return None
        figure, panels = grid
        for axes, scores in panels:
            axes.set_yticks([])
            if not scores:
                continue
            low, high = np.percentile(np.concatenate(list(scores.values())), [0.5, 99.5])
            edges = np.linspace(low, high if high > low else low + 1, self.bins + 1).tolist()
            axes.hist(scores["test"], edges, density=True, color=ID_COLOUR, alpha=0.45, label="ID test")
            for name, colour in colours(material.groups).items():
                if name in scores:
                    axes.hist(scores[name], edges, density=True, histtype="step", color=colour, lw=1.3, label=name)
        legend_below(figure)
        return figure
