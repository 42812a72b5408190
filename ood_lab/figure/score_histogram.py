"""Histograms of each detector's scores on ID and OOD images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import DASHES, ID_COLOUR, OUTLIER_COLOUR, DetectorPanels, shown
from ood_lab.results.material import SYNTHESIZED, Array

SHOWN = (0.5, 99.5)  # percentiles of the images' scores between which bins lie
FARTHEST = 4.0  # widths of the ID scores: what lies farther out is counted in the last bin
STEEP = 12.0  # times the density of scores spread evenly; above it, heights are drawn as square roots


def bin_edges(scores: Mapping[str, Array], bins: int) -> Array:
    """Edges over all images' scores, but no farther from those of ID images than `FARTHEST` times their own range.

    A set whose scores are a hundred times as large would leave one bin for all others.
    """
    finite = {name: values[np.isfinite(values)] for name, values in scores.items()}
    images = np.concatenate([values for name, values in finite.items() if name != SYNTHESIZED])
    if not len(images):
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = np.percentile(images, SHOWN)
    id_low, id_high = np.percentile(finite["test"] if len(finite["test"]) else images, SHOWN)
    width = (id_high - id_low) or 1.0
    if len(finite.get(SYNTHESIZED, ())):
        low, high = min(low, finite[SYNTHESIZED].min()), max(high, finite[SYNTHESIZED].max())
    low, high = max(low, id_low - FARTHEST * width), min(high, id_high + FARTHEST * width)
    edges: Array = np.linspace(low, high if high > low else low + 1, bins + 1)
    return edges


class ScoreHistogram(DetectorPanels):
    """A panel for each run and detector: ID filled, each OOD set a line, as densities over the same bins.

    Synthesized outliers are a dash-dotted line (HamOS, Figures 2, 5, 8 and 9).

    Args:
        bins: see `bin_edges`.
    """

    title = "Scores"
    caption = (
        "Score densities (higher = more OOD). A detector separates well where the filled ID histogram and the lines "
        "of the OOD sets share little ground. Scores far outside those of ID images are counted in the first or last "
        "bin. Where the scores of a set fill a few bins alone, heights are square roots, and the axis says so. Thin, "
        "dash-dotted: synthesized outliers, where a detector can score points."
    )
    size = (3.1, 2.5)

    def __init__(self, *, bins: PositiveInt) -> None:
        self.bins = bins

    def panel(self, axes: Axes, values: Mapping[str, Array], palette: Mapping[str, str]) -> None:
        axes.set_yticks([])
        axes.set_xlabel("score", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(4))  # long numbers don't run into each other
        edges = bin_edges(values, self.bins)

        def drawn(name: str, **style: Any) -> None:
            axes.hist(np.clip(values[name], edges[0], edges[-1]), edges.tolist(), density=True, **style)

        drawn("test", color=ID_COLOUR, alpha=0.45, label="ID test")
        for number, (name, colour) in enumerate(palette.items()):
            if name in values:
                dashes = DASHES[number % len(DASHES)]
                drawn(name, histtype="step", color=colour, lw=1.3, ls=dashes, label=shown(name))
        if SYNTHESIZED in values:
            drawn(SYNTHESIZED, histtype="step", color=OUTLIER_COLOUR, lw=1.0, ls="-.", label="synthesized outliers")
        if axes.dataLim.y1 * (edges[-1] - edges[0]) > STEEP:
            axes.set_yscale("function", functions=(np.sqrt, np.square))
            axes.set_ylim(bottom=0)
            axes.set_yticks([])
            axes.set_xlabel("score (heights: square roots)", fontsize=8)
