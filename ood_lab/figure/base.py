"""What a figure is to the rest of the program, and the look they share."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from ood_lab.errors import NotDefinedError
from ood_lab.results.material import Array, Material

# Okabe and Ito's palette: told apart by colour-blind readers too. ID is always blue.
ID_COLOUR = "#0072B2"
OOD_COLOURS = ("#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F")
OUTLIER_COLOUR = "#B2182B"
# OOD sets are told apart without colour, too.
DASHES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))
LONGEST_LABEL = 40  # characters
ACROSS = 6  # panels beside each other: more can't be read on a screen


class FigureKind:
    """Draws one picture of a report from `Material`; `caption` says how to read it."""

    title: str
    caption: str
    beside: Sequence[str] = ()  # folders of further runs, whose material comes before that of the run itself

    def draw(self, material: Material) -> Figure | None:
        """The picture, or None where the material has nothing to show."""
        raise NotDefinedError(self, "draw")

    def panels(self, material: Material) -> list[tuple[str, str, Figure]]:
        """The picture in parts that a page puts beside or below each other, each with what it shows; none where it is
        one whole."""
        return []


def shown(name: str) -> str:
    """A name as a label: "$" is no formula, a leading "_" does not hide it, and a long one is cut."""
    text = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 3]}..."
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


class DetectorPanels(FigureKind):
    """A picture with a panel for each run and detector; a subclass draws one panel.

    `of` says what of a detector a panel is given, `shared` is for `Figure.subplots`. With `own_legends` each panel has
    a legend, or else all have one together.
    """

    size: ClassVar[tuple[float, float]]  # of a panel in inches
    of: ClassVar[Literal["scores", "radii"]] = "scores"
    shared: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    own_legends: ClassVar[bool] = False

    def panel(self, axes: Axes, values: Mapping[str, Array], palette: Mapping[str, str]) -> None:
        """Draw what a detector gives, by set ("test" is ID).

        Args:
            palette: a colour for each OOD set.
        """
        raise NotDefinedError(self, "panel")

    def draw(self, material: Material) -> Figure | None:
        grid = score_panels(material, self.size, self.of, **self.shared)
        if grid is None:
            return None
        figure, panels = grid
        for axes, values in panels:
            if values:
                self.panel(axes, values, colours(material.groups))
                if self.own_legends:
                    axes.legend(loc="lower right", fontsize=6.5, frameon=False)
        if not self.own_legends:
            shared_legend(figure)
        return figure

    def panels(self, material: Material) -> list[tuple[str, str, Figure]]:
        found = []
        for run in material.runs:
            for scorer, values in getattr(run, self.of).items():
                # Room for the legend is known: a layout that measures everything takes twice as long.
                below = 0.55 + 0.17 * -(-(len(material.groups) + 2) // 2)
                figure = Figure(figsize=(3.3, 2.9 + below - 0.55))
                axes = figure.subplots()
                height = figure.get_figheight()
                figure.subplots_adjust(left=0.16, right=0.97, top=1 - 0.42 / height, bottom=below / height)
                axes.set_title(scorer, fontsize=9, fontweight="bold", pad=16)
                axes.annotate(
                    shown(run.label), (0.5, 1), (0, 4), "axes fraction", "offset points", ha="center", fontsize=8
                )
                tidy(axes)
                self.panel(axes, values, colours(material.groups))
                shared_legend(figure, "lower center", columns=2)
                found.append((run.label, f"{self.title}: {scorer} on {run.label}", figure))
        return found


def colours(ood_sets: Iterable[str]) -> dict[str, str]:
    """A colour for each OOD set, the same in every figure of a report."""
    return {name: OOD_COLOURS[i % len(OOD_COLOURS)] for i, name in enumerate(ood_sets)}


class Panel(NamedTuple):
    """The axes of one run and detector, and what the detector gives by set (empty if it was not scored)."""

    axes: Axes
    values: Mapping[str, Array]


def score_panels(
    material: Material, size: tuple[float, float], of: Literal["scores", "radii"] = "scores", **shared: Any
) -> tuple[Figure, list[Panel]] | None:
    """A panel for each run and detector, at most `ACROSS` beside each other, each run beginning a new row.

    Args:
        size: width and height of a panel in inches.
        of: what of a detector a panel is given.
        shared: for `Figure.subplots`.

    Returns:
        None where there is nothing.
    """
    scorers = list(dict.fromkeys(name for run in material.runs for name in getattr(run, of)))
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
            row[0].set_ylabel(shown(run.label), fontsize=9)
        for number, axes in enumerate(block.flat):
            if number >= len(scorers):
                axes.set_visible(False)
                continue
            axes.set_title(scorers[number], fontsize=9)
            axes.set_label(f"{run.label}: {scorers[number]}")
            tidy(axes)
            panels.append(Panel(axes, getattr(run, of).get(scorers[number], {})))
    return figure, panels


def shared_legend(
    figure: Figure,
    place: Literal["outside lower center", "outside right upper", "lower center"] = "outside lower center",
    columns: int = 7,
) -> None:
    """One legend for all panels, each entry once, in at most so many columns."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = min(columns, len(entries))
    figure.legend(entries.values(), entries, loc=place, ncols=columns, fontsize=8, frameon=False)


def values_of(figure: Figure) -> list[dict[str, Any]]:
    """What a picture shows as numbers, a row for each point: panel, series, x, y.

    Of bars x is the left edge; bands and bodies are given by their outlines.
    """
    rows: list[dict[str, Any]] = []
    for number, axes in enumerate(figure.axes):
        panel = str(axes.get_label()) or axes.get_title() or axes.get_ylabel() or str(number)
        for series, points in _series(axes):
            rows += [{"panel": panel, "series": series.lstrip("_"), "x": x, "y": y} for x, y in points]
    return rows


def _series(axes: Axes) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for line in axes.lines:
        yield str(line.get_label()), [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
    for container in axes.containers:
        bars = [bar for bar in container if isinstance(bar, Rectangle)]
        named = bars[0] if str(container.get_label()).startswith("_") else container  # a histogram names its first bar
        yield str(named.get_label()), [(bar.get_x(), bar.get_height()) for bar in bars]
    for patch in axes.patches:
        if isinstance(patch, Polygon):
            yield str(patch.get_label()), [(float(x), float(y)) for x, y in patch.get_xy()]
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            points = [(float(x), float(y)) for x, y in np.asarray(collection.get_offsets())]
            yield str(collection.get_label()), points
        elif isinstance(collection, PolyCollection):
            outlines = (np.asarray(path.vertices) for path in collection.get_paths())
            yield str(collection.get_label()), [(float(x), float(y)) for outline in outlines for x, y in outline]


def tidy(axes: Axes) -> None:
    """Fewer lines around the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def picture(figure: Figure, kind: Literal["png", "pdf"] = "png") -> bytes:
    """A figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130)
    return buffer.getvalue()


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV, with the columns of all of them in the order in which they come up."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def files_of(figure: Figure) -> dict[str, bytes]:
    """A figure as PNG, PDF, and its numbers as CSV, by the ends of their names."""
    png = picture(figure)
    figure.set_layout_engine("none")  # everything has its place now
    return {"png": png, "pdf": picture(figure, "pdf"), "csv": as_csv(values_of(figure))}
