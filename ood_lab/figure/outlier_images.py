"""Outlier images as a run's network sees them: pictures under a growing change, and energies before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import ID_COLOUR, OUTLIER_COLOUR, FigureKind, tidy
from ood_lab.results.material import Material

BEFORE_COLOUR = "#E69F00"


class OutlierImages(FigureKind):
    """A row for each strength of the run's perturbation, and histograms of energies (AOE, Figures 2 and 3).

    For the classifier before any training with outliers: trainer.max_epochs=0.

    Args:
        columns: images of a row, 8 at most.
        bins: of the histograms.
    """

    title = "Outlier images"
    caption = (
        "Outlier images, unchanged and under growing changes (left: how much; above each: its energy, lower for ID). "
        "Right: energies of ID test images and of outliers before and after the change of training. Below, how many "
        "of those with a class this network names so, and how far its penultimate features are from those of ID "
        "training images (Fréchet distance; beside it that of ID test images): numbers of this network alone, "
        "not to be compared with FID."
    )

    def __init__(self, *, columns: PositiveInt, bins: PositiveInt) -> None:
        self.columns, self.bins = columns, bins

    def draw(self, material: Material) -> Figure | None:
        run = material.runs[-1]
        if run.outlier_images is None:
            return None
        found = run.outlier_images()
        pictures, energies = found["pictures"][:, : self.columns], found["energies"]
        rows, columns = pictures.shape[:2]
        figure = Figure(figsize=(0.75 * columns + 4.2, max(0.95 * rows + 0.6, 3.2)), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(0.75 * columns, 4.2))[0]
        grid = left.subplots(rows, columns, squeeze=False)
        for row, strength in enumerate(found["strengths"]):
            grid[row, 0].set_ylabel(f"{float(strength):g}", rotation=0, ha="right", va="center", fontsize=9)
            for column in range(columns):
                axes = grid[row, column]
                axes.imshow(pictures[row, column], interpolation="nearest")
                axes.set_title(f"{float(energies[row, column]):.1f}", fontsize=7, pad=2)
                axes.set_xticks([])
                axes.set_yticks([])
        self._energies(right.subplots(), found)
        return figure

    def _energies(self, axes: Axes, found: Mapping[str, NDArray[Any]]) -> None:
        kinds = {"ID test": ("energy/id", ID_COLOUR), "outliers": ("energy/before", BEFORE_COLOUR)}
        if len(found["strengths"]) > 1:
            kinds["outliers, changed"] = ("energy/after", OUTLIER_COLOUR)
        values = np.concatenate([found[key] for key, _ in kinds.values()])
        low, high = np.percentile(values, [0.5, 99.5])
        edges = np.linspace(low, high if high > low else low + 1, self.bins + 1).tolist()
        for label, (key, colour) in kinds.items():
            filled = key == "energy/id"
            kind: dict[str, Any] = {"alpha": 0.45} if filled else {"histtype": "step", "lw": 1.4}
            axes.hist(found[key], edges, density=True, color=colour, label=label, **kind)
        axes.set_yticks([])
        axes.set_xlabel("energy\n" + self._quality(found), fontsize=8)
        axes.legend(fontsize=8, frameon=False)
        tidy(axes)

    def _quality(self, found: Mapping[str, NDArray[Any]]) -> str:
        asked = found["asked"] >= 0
        lines = []
        if asked.any():
            share = float((found["named"] == found["asked"])[asked].mean())
            lines.append(f"{100 * share:.1f} % of {int(asked.sum())} are named as the class asked for")
        lines.append(
            f"feature distance {float(found['distance'][0]):.3g}; of ID test images {found['distance/id'][0]:.3g}"
        )
        return "\n".join(lines)
