"""Outliers as a decoder draws them: beside ID images, and along the ways on which they were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from ood_lab.figure.base import ID_COLOUR, OUTLIER_COLOUR, FigureKind
from ood_lab.results.material import Material

ROWS = {"images": "ID image", "embeddings": "decoded", "outliers": "outlier"}
GRIDS = {
    "steps": "k: steps up to the boundary",
    "further": "c: further steps behind it",
    "alpha": "alpha: step size",
}


class DecodedOutliers(FigureKind):
    """ID images beside decoded embeddings and outliers (BOOD, Figure 1); grids of k, c and alpha (2, 3)."""

    title = "Decoded outliers"
    caption = (
        "Top: training images, what the decoder makes of their embeddings, and of outliers that come from them (across "
        "a boundary) or are of the same class; a column has one noise. Below, for outliers across a boundary: some "
        "embeddings along their steps up to it, along further steps behind it, and across it by steps of other sizes; "
        "a row has one noise. "
        "Bars: probability of the embedding's own class (blue) and the highest of another class (red) by the encoder."
    )

    def draw(self, material: Material) -> Figure | None:
        run = material.runs[-1]
        if run.decoded_outliers is None:
            return None
        found = run.decoded_outliers()
        grids = [name for name in GRIDS if f"{name}/pictures" in found]
        columns = found["images"].shape[0]
        rows = found["steps/pictures"].shape[1] if grids else 0
        height = 2.4 + (0.4 + 1.15 * rows if grids else 0)
        figure = Figure(figsize=(max(0.72 * columns + 1, 11.5 if grids else 0), height), layout="constrained")
        if not grids:
            self._sheet(figure, found)
            return figure
        top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(2.4, height - 2.4)))
        self._sheet(top, found)
        widths = [found[f"{name}/pictures"].shape[0] for name in grids]
        panels = np.atleast_1d(np.asarray(bottom.subfigures(1, len(grids), width_ratios=widths)))
        for panel, name in zip(panels, grids, strict=True):
            self._grid(panel, name, found)
        return figure

    def _sheet(self, figure: Figure | SubFigure, found: Mapping[str, NDArray[Any]]) -> None:
        grid = figure.subplots(len(ROWS), found["images"].shape[0], squeeze=False)
        for row, (name, label) in zip(grid, ROWS.items(), strict=True):
            row[0].set_ylabel(label, fontsize=8)
            for axes, picture in zip(row, found[name], strict=True):
                _show(axes, picture)

    def _grid(self, figure: SubFigure, name: str, found: Mapping[str, NDArray[Any]]) -> None:
        figure.suptitle(GRIDS[name], fontsize=9)
        pictures, values = found[f"{name}/pictures"], found[f"{name}/values"]
        columns, rows = values.shape
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 0.35] * rows)
        for row in range(rows):
            for column in range(columns):
                axes, bars = grid[2 * row, column], grid[2 * row + 1, column]
                value = f"{float(values[column, row]):.4g}"
                _show(axes, pictures[column, row])
                axes.set_title(value, fontsize=7, pad=2)
                for place, (series, colour) in enumerate({"own": ID_COLOUR, "other": OUTLIER_COLOUR}.items()):
                    bars.bar([place], [found[f"{name}/{series}"][column, row]], color=colour, label=series)
                bars.set_label(f"{name}, row {row + 1}, column {column + 1}: {value}")
                bars.set(ylim=(0, 1), xlim=(-0.6, 1.6))
                _bare(bars)


def _show(axes: Axes, picture: NDArray[np.uint8]) -> None:
    axes.imshow(picture, interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
