"""One logged value in each panel, a line for each run: what a part changes in training (GReg, Figure 3)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import ID_COLOUR, OOD_COLOURS, FigureKind, shared_legend, tidy
from ood_lab.results.material import Array, Material


class CurveComparison(FigureKind):
    """Curves of this run and of finished ones in the same panels.

    Args:
        keys: what is drawn, as `curves.jsonl` names it; a panel each.
        window: logged points that a line is the running mean of, at most a tenth of all of them; the points themselves
            are drawn pale.
        beside: folders of the runs to compare with.
    """

    title = "Curves compared"
    caption = "Values logged in training, pale as they are, and their running mean; a colour for each run."

    def __init__(self, *, keys: list[str], window: PositiveInt, beside: list[str]) -> None:
        self.keys, self.window, self.beside = keys, window, beside

    def draw(self, material: Material) -> Figure | None:
        runs = material.runs[-1 - len(self.beside) :]
        keys = [key for key in self.keys if any(key in point for run in runs for point in run.curves)]
        if not keys:
            return None
        figure = Figure(figsize=(4.2 * len(keys), 3.4), layout="constrained")
        for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
            axes.set_title(key.rpartition("/")[2].replace("_", " "), fontsize=9)
            axes.set_label(key)
            axes.set_xlabel("step", fontsize=8)
            tidy(axes)
            for number, run in enumerate(runs):
                points = np.array([(point["step"], point[key]) for point in run.curves if key in point])
                if not len(points):
                    continue
                colour = (ID_COLOUR, *OOD_COLOURS)[number % (1 + len(OOD_COLOURS))]
                axes.plot(*points.T, color=colour, lw=0.8, alpha=0.3, label=f"_{run.label}, as logged")
                axes.plot(*_running_mean(points, self.window).T, color=colour, lw=1.6, label=run.label)
        shared_legend(figure, columns=2)
        return figure


def _running_mean(points: Array, window: int) -> Array:
    """Means over neighbouring points, fewer where there are none left to one side."""
    window = min(window, max(1, len(points) // 10))
    before, behind = (window - 1) // 2, window // 2 + 1
    means: Array = np.stack([points[max(0, i - before) : i + behind].mean(0) for i in range(len(points))])
    means[:, 0] = points[:, 0]
    return means
