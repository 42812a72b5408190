"""Histograms of each detector's scores on ID and OOD images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import ID_COLOUR, OUTLIER_COLOUR, FigureKind, colours, score_panels, shared_legend
from ood_lab.results.material import SYNTHESIZED, Material


class ScoreHistogram(FigureKind):
    """A panel for each run and detector: ID filled, each OOD set a line, as densities over the same bins.

    Synthesized outliers are a dashed line (HamOS, Figures 2, 5, 8 and 9).

    Args:
        bins: between the 0.5th and 99.5th percentile of the images' scores, further where outliers lie outside.
    """

    title = "Scores"
    caption = (
        "Score densities (higher = more OOD). A detector separates well where the filled ID histogram and the lines "
        "of the OOD sets share little ground. Dashed: synthesized outliers, where a detector can score points."
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
            images = [values for name, values in scores.items() if name != SYNTHESIZED]
            low, high = np.percentile(np.concatenate(images), [0.5, 99.5])
            if SYNTHESIZED in scores:
                low, high = min(low, scores[SYNTHESIZED].min()), max(high, scores[SYNTHESIZED].max())
            edges = np.linspace(low, high if high > low else low + 1, self.bins + 1).tolist()
            axes.hist(scores["test"], edges, density=True, color=ID_COLOUR, alpha=0.45, label="ID test")
            for name, colour in colours(material.groups).items():
                if name in scores:
                    axes.hist(scores[name], edges, density=True, histtype="step", color=colour, lw=1.3, label=name)
            if SYNTHESIZED in scores:
                axes.hist(scores[SYNTHESIZED], edges, density=True, histtype="step", color=OUTLIER_COLOUR, lw=1.3,
                          ls="--", label="synthesized outliers")  # fmt: skip
        shared_legend(figure)
        return figure
