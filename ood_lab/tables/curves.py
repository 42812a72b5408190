"""A table whose rows are values of one setting, as lines with their spread (HamOS, Figures 3 and 11; AOE, Figure 4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ood_lab.tables.cells import Cell, Filled
from ood_lab.tables.layout import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 3  # values that make a line
ACROSS = 4


def settings(filled: Filled) -> list[float] | None:
    """The value of each row, by its label ("3(default)" is 3); None where the rows are no values of one setting."""
    found = [re.match(r"\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?:\(.*\))?$", row.label) for row in filled.table.rows]
    if len(found) < LEAST or not all(found):
        return None
    values = [float(match[1]) for match in found if match]
    return values if len(set(values)) == len(values) else None


def draw(filled: Filled) -> Figure | None:
    """A panel for each column with figures of ours: mean and population deviation, the paper's dashed.

    None for a table of another kind, or before there are runs.
    """
    values = settings(filled)
    columns = [i for i, column in enumerate(filled.columns) if any(row[i].values for row in filled.cells)]
    if values is None or not columns:
        return None
    from matplotlib.figure import Figure  # takes a second, and most commands draw nothing

    across = min(ACROSS, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(2.9 * across, 2.3 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    order = sorted(range(len(values)), key=values.__getitem__)
    for axes, i in zip(panels.flat, columns, strict=False):
        column = filled.columns[i]
        metric, over = heading(column)
        axes.set_title(f"{column.dataset}: {' '.join(part for part in (metric, over) if part)}", fontsize=9)
        _lines(axes, [values[n] for n in order], [filled.cells[n][i] for n in order])
    for axes in panels.flat[len(columns) :]:
        axes.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.suptitle(f"{filled.table.source}: {filled.table.title}", fontsize=10)
    return figure


def _lines(axes: Axes, values: Sequence[float], cells: Sequence[Cell]) -> None:
    """Values stand at equal distances, as in a table: settings often grow tenfold."""
    places = list(range(len(values)))
    ours = [(x, cell.mean, cell.std or 0.0) for x, cell in zip(places, cells, strict=True) if cell.mean is not None]
    if ours:
        x, mean, std = zip(*ours, strict=True)
        axes.plot(x, mean, color="#0072B2", marker="o", ms=4, lw=1.4, label="ours")
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color="#0072B2", alpha=0.2, lw=0)
    paper = [(x, float(cell.paper)) for x, cell in zip(places, cells, strict=True) if cell.paper is not None]
    if paper:
        axes.plot(*zip(*paper, strict=True), color="0.4", marker="s", ms=3, lw=1.1, ls="--", label="paper")
    axes.set_xticks(places, [f"{value:g}" for value in values])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
