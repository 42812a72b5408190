"""What a figure is to the rest of the program, and the look they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ood_lab.results.material import Array, Material

# Okabe and Ito's palette: told apart by colour-blind readers too. ID is always blue.
ID_COLOUR = "#0072B2"
OOD_COLOURS = ("#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F")
OUTLIER_COLOUR = "#B2182B"
ACROSS = 6  # panels beside each other: more can't be read on a screen


class FigureKind:
    """Draws one picture of a report from `Material`; `caption` says how to read it."""

    title: str
    caption: str

    def draw(self, material: Material) -> Figure | None:
        """The picture, or None where the material has nothing to show."""
        raise NotImplementedError(f"{type(self).__name__} must define draw()")


def colours(ood_sets: Iterable[str]) -> dict[str, str]:
    """A colour for each OOD set, the same in every figure of a report."""
    return {name: OOD_COLOURS[i % len(OOD_COLOURS)] for i, name in enumerate(ood_sets)}


class Panel(NamedTuple):
    """The axes of one run and detector, and the detector's scores by set (empty if it was not scored)."""

    axes: Axes
    scores: Mapping[str, Array]


def score_panels(material: Material, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[Panel]] | None:
    """A panel for each run and detector, at most `ACROSS` beside each other, each run beginning a new row.

    Args:
        size: width and height of a panel in inches.
        shared: for `Figure.subplots`.

    Returns:
        None where nothing is scored.
    """
    scorers = list(dict.fromkeys(name for run in material.runs for name in run.scores))
    if not scorers:
        return None
    across = min(ACROSS, len(scorers))
    rows = -(-len(scorers) // across)  # of one run
    height = size[1] * rows * len(material.runs) + 0.5
    figure = Figure(figsize=(size[0] * across, height), layout="constrained")
    grid = figure.subplots(rows * len(material.runs), across, squeeze=False, **shared)
    panels = []
    for place, run in enumerate(material.runs):
        block = grid[place * rows : (place + 1) * rows]
        for row in block:
            row[0].set_ylabel(run.label, fontsize=9)
        for number, axes in enumerate(block.flat):
            if number >= len(scorers):
                axes.set_visible(False)
                continue
            axes.set_title(scorers[number], fontsize=9)
            tidy(axes)
            panels.append(Panel(axes, run.scores.get(scorers[number], {})))
    return figure, panels


def legend_below(figure: Figure) -> None:
    """One legend for all panels, from the first one's entries."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(7, len(labels)), fontsize=8, frameon=False)


def tidy(axes: Axes) -> None:
    """Fewer lines around the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
