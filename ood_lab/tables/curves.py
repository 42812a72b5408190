"""A table whose rows are values of one setting, as lines with their spread (HamOS, Tables 16 to 24; AOE, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from textwrap import fill
from typing import TYPE_CHECKING

from ood_lab.tables.cells import Cell, Filled
from ood_lab.tables.layout import heading, seeds_text
from ood_lab.tables.swept import sweep_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4
LETTERS = 12  # of a title, an inch
LEAST_SPAN = 10.0  # percentage points that an axis shows at least, so that noise looks as small as it is
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(filled: Filled) -> Figure | None:
    """A panel for each column with figures of ours: mean and population deviation, the paper's dashed.

    None for a table of another kind, or before there are runs.
    """
    columns = [i for i, column in enumerate(filled.columns) if any(row[i].values for row in filled.cells)]
    sweeps = {i: sweep for i in columns if (sweep := sweep_of(filled.table, filled.columns[i].dataset))}
    if not sweeps:
        return None
    from matplotlib.figure import Figure  # takes a second, and most commands draw nothing

    from ood_lab.figure.base import shared_legend, tidy

    across = min(ACROSS, len(sweeps))
    down = -(-len(sweeps) // across)
    figure = Figure(figsize=(2.9 * across, 2.3 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axes, (i, sweep) in zip(panels.flat, sweeps.items(), strict=False):
        column = filled.columns[i]
        metric, over = heading(column)
        axes.set_title(f"{column.dataset}: {' '.join(part for part in (metric, over) if part)}", fontsize=9)
        places = sorted({value for values in sweep.lines.values() for value in values.values()})
        for colour, (label, values) in zip(cycle(COLOURS), sweep.lines.items(), strict=False):
            cells = [(places.index(value), filled.cells[number][i]) for number, value in values.items()]
            _line(axes, sorted(cells, key=lambda point: point[0]), label, colour)
        axes.set_xticks(range(len(places)), [f"{value:g}" for value in places])
        axes.set_xlabel(sweep.key, fontsize=8)
        if (column.unit or filled.table.unit) == "percent":
            _widen(axes)
        tidy(axes)
    for axes in panels.flat[len(sweeps) :]:
        axes.set_visible(False)
    shared_legend(figure)
    spread = ["no spread, so small steps may be chance"] if len(filled.table.seeds) == 1 else []
    about = "; ".join([seeds_text(filled.table), *spread, *filled.table.changed])
    width = int(LETTERS * figure.get_figwidth())
    texts = (f"{filled.table.source}: {filled.table.title}", about)
    figure.suptitle("\n".join(fill(text, width) for text in texts), fontsize=10)
    return figure


def _widen(axes: Axes) -> None:
    """Show at least `LEAST_SPAN`, with the lines in the middle."""
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:
        middle = (low + high) / 2
        axes.set_ylim(middle - LEAST_SPAN / 2, middle + LEAST_SPAN / 2)


def _line(axes: Axes, cells: Sequence[tuple[int, Cell]], label: str, colour: str) -> None:
    """Cells by their places, which are at equal distances as in a table: settings often grow tenfold."""
    ours = [(x, cell.mean, cell.std or 0.0) for x, cell in cells if cell.mean is not None]
    if ours:
        x, mean, std = zip(*ours, strict=True)
        axes.plot(x, mean, color=colour, marker="o", ms=4, lw=1.4, label=label)
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0, label=f"_{label}: mean ± deviation")
    paper = [(x, float(cell.paper)) for x, cell in cells if cell.paper is not None]
    if paper:
        theirs = "paper" if label == "ours" else f"{label}, paper"
        dashed = "0.4" if label == "ours" else colour
        axes.plot(*zip(*paper, strict=True), color=dashed, marker="s", ms=3, lw=1.1, ls="--", label=theirs)
