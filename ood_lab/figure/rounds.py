"""How chains go round by round: OOD-ness, acceptance, causes of refusal (HamOS, Figures 4, 12 and 13)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveFloats, PositiveInts
from ood_lab.figure.base import ID_COLOUR, OOD_COLOURS, OUTLIER_COLOUR, FigureKind, tidy
from ood_lab.results.material import Array, Material, RunMaterial
from ood_lab.sampling.chain import Fate

FATES = {  # name and colour of what became of a proposal
    Fate.ACCEPTED: ("accepted", ID_COLOUR),
    Fate.MARGIN: ("refused by the margin", OOD_COLOURS[1]),
    Fate.METROPOLIS: ("refused by Metropolis", OOD_COLOURS[0]),
}


class Rounds(FigureKind):
    """OOD-ness of the points of each round, drawn from the finished network's bank; with or without other settings.

    Without lists: the run's own setting, what became of the proposals, and OOD-ness of each round over the training.
    With lists of leapfrog steps or step sizes: a panel for each combination, drawn anew from the same bank; nothing is
    trained for it (HamOS, Figures 12 and 13).

    Args:
        leapfrog_steps: L of each row of panels; none keeps the run's.
        step_size: epsilon of each column.
    """

    title = "Rounds of the chains"
    caption = (
        "OOD-ness (mean distance to the k-th neighbour in the two classes of a chain) of the points after each round; "
        "round 0 are the midpoints. Bodies are densities, bars medians. Refused proposals repeat their point."
    )

    def __init__(self, *, leapfrog_steps: PositiveInts, step_size: PositiveFloats) -> None:
        self.leapfrog_steps, self.step_size = leapfrog_steps, step_size

    def draw(self, material: Material) -> Figure | None:
        run = material.runs[-1]
        if "round" not in run.columns:
            return None
        return self._grid(run) if self.leapfrog_steps or self.step_size else self._own(run)

    def _own(self, run: RunMaterial) -> Figure:
        figure = Figure(figsize=(11.5, 3.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _violins(left, run.columns)
        left.set_title("finished network", fontsize=9)
        left.set_ylabel("OOD-ness", fontsize=9)
        left.set_xlabel("round", fontsize=8)
        _fates(middle, run.columns)
        _over_training(right, run)
        return figure

    def _grid(self, run: RunMaterial) -> Figure:
        assert run.redraw is not None
        rows: list[int | None] = [*self.leapfrog_steps] or [None]
        across: list[float | None] = [*self.step_size] or [None]
        figure = Figure(figsize=(2.3 * len(across) + 0.6, 1.9 * len(rows) + 0.4), layout="constrained")
        grid = figure.subplots(len(rows), len(across), squeeze=False, sharex=True, sharey=True)
        for axes, (steps, size) in zip(grid.flat, product(rows, across), strict=True):
            changes: dict[str, Any] = {} if steps is None else {"leapfrog_steps": steps}
            changes |= {} if size is None else {"step_size": size}
            _violins(axes, run.redraw(changes))
            named = {"L": steps, "step": size}
            axes.set_title(", ".join(f"{k} {v}" for k, v in named.items() if v is not None), fontsize=9)
        for row in grid:
            row[0].set_ylabel("OOD-ness", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("round", fontsize=8)
        return figure


def _by_round(columns: Mapping[str, Array], name: str) -> list[Array]:
    return [columns[name][columns["round"] == number] for number in np.unique(columns["round"])]


def _violins(axes: Axes, columns: Mapping[str, Array]) -> None:
    tidy(axes)
    oodness = _by_round(columns, "oodness")
    spread = [number for number, values in enumerate(oodness) if np.ptp(values) > 0]
    if spread:
        bodies = axes.violinplot([oodness[n] for n in spread], spread, showextrema=False, widths=0.85)
        for body in bodies["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=OUTLIER_COLOUR, alpha=0.35, linewidth=0, label="_density of OOD-ness")
    medians = [float(np.median(values)) for values in oodness]
    axes.plot(range(len(medians)), medians, color=OUTLIER_COLOUR, marker="_", ms=12, lw=1, label="median OOD-ness")
    axes.set_xticks(range(len(medians)))


def _fates(axes: Axes, columns: Mapping[str, Array]) -> None:
    tidy(axes)
    fates = _by_round(columns, "fate")[1:]
    rounds, bottom = np.arange(1, len(fates) + 1), np.zeros(len(fates))
    for fate, (name, colour) in FATES.items():
        share = np.array([float((values == fate).mean()) for values in fates])
        axes.bar(rounds, share, bottom=bottom, color=colour, width=0.7, label=name)
        bottom += share
    axes.set_title("proposals", fontsize=9)
    axes.set_xlabel("round", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3)


def _over_training(axes: Axes, run: RunMaterial) -> None:
    tidy(axes)
    found = {key for point in run.curves for key in point if key.startswith("info/round_") and "oodness" in key}
    keys = sorted(found, key=lambda key: int(key.split("_")[1].split("/")[0]))
    for number, key in enumerate(keys):
        points = [(p["step"], p[key]) for p in run.curves if key in p]
        shade = 0.85 - 0.75 * number / max(1, len(keys) - 1)
        label = f"round {key.split('_')[1].split('/')[0]}"
        axes.plot(*zip(*points, strict=True), color=str(shade), lw=1.3, label=label)
    axes.set_title("mean OOD-ness over the training", fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    if keys:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
