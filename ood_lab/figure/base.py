"""What a figure is to the rest of the program, and the look they share."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ood_lab.results.material import Material

# Okabe and Ito's palette: told apart by colour-blind readers too. ID is always blue.
ID_COLOUR = "#0072B2"
OOD_COLOURS = ("#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F")
OUTLIER_COLOUR = "#B2182B"


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


def tidy(axes: Axes) -> None:
    """Fewer lines around the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
