"""A table whose rows are values of one setting, as lines with their spread (HamOS, Tables 16 to 24; AOE, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from ood_lab.tables.cells import Cell, Filled, as_number
from ood_lab.tables.layout import heading
from ood_lab.tables.spec import Table, key_of, settings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 3  # values that make a line
ACROSS = 4
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class Sweep(NamedTuple):
    """The rows of a table as values of one setting.

    Args:
        key: the setting, the only one in which the rows of a line differ.
        lines: for each line its label, and the value of each of its rows by the row's number.
    """

    key: str
    lines: dict[str, dict[int, float]]


def sweep_of(table: Table, dataset: str) -> Sweep | None:
    """What the rows sweep on an ID set, by their overrides; None where that is not one number."""
    options = [settings_of(row, dataset) for row in table.rows]
    replaced = {key_of(override) for override in table.overrides}
    numbers = [
        {k: n for k, v in own.items() if k not in replaced and (n := as_number(v)) is not None} for own in options
    ]
    swept = [k for k in (numbers[0] if numbers else ()) if all(k in own for own in numbers)]
    swept = [k for k in swept if len({own[k] for own in numbers}) > 1]
    if len(swept) != 1:
        return None
    (key,) = swept
    found: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}
    for number, own in enumerate(options):
        found.setdefault(tuple(sorted((k, v) for k, v in own.items() if k != key)), {})[number] = numbers[number][key]
    lines = {table.rows[min(values)].label if len(found) > 1 else "ours": values for values in found.values()}
    distinct = all(len(set(values.values())) == len(values) >= LEAST for values in lines.values())
    return Sweep(key, lines) if distinct and len(lines) == len(found) else None


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
        tidy(axes)
    for axes in panels.flat[len(sweeps) :]:
        axes.set_visible(False)
    shared_legend(figure)
    keys = ", ".join(dict.fromkeys(sweep.key for sweep in sweeps.values()))
    figure.suptitle(f"{filled.table.source}: {filled.table.title} ({keys})", fontsize=10)
    return figure


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
