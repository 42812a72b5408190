"""AUROC on each OOD set, from the farthest to the nearest, a line for each run (AOE, Figure 7)."""

from __future__ import annotations

from matplotlib.figure import Figure

from ood_lab.figure.base import ID_COLOUR, OOD_COLOURS, FigureKind, shared_legend, tidy
from ood_lab.results.material import Material


class PerSet(FigureKind):
    """A panel for each detector that all runs have.

    Args:
        beside: folders of the runs to compare with. The first of all runs orders the sets: where it detects best is
            far. The paper does not say how it orders them.
    """

    title = "Set by set"
    caption = "AUROC on each OOD set, ordered by that of the first run: from far to near."

    def __init__(self, *, beside: list[str]) -> None:
        self.beside = beside

    def draw(self, material: Material) -> Figure | None:
        runs = material.runs[-1 - len(self.beside) :]
        scorers = [name for name in runs[0].auroc if all(name in run.auroc for run in runs)]
        if not scorers:
            return None
        figure = Figure(figsize=(4.2 * len(scorers), 3.4), layout="constrained")
        for axes, scorer in zip(figure.subplots(1, len(scorers), squeeze=False, sharey=True)[0], scorers, strict=True):
            axes.set_title(scorer, fontsize=9)
            axes.set_label(scorer)
            sets = [name for name in material.groups if all(name in run.auroc[scorer] for run in runs)]
            sets.sort(key=lambda name: -runs[0].auroc[scorer][name])
            for number, run in enumerate(runs):
                values = [100 * run.auroc[scorer][name] for name in sets]
                colour = (ID_COLOUR, *OOD_COLOURS)[number % (1 + len(OOD_COLOURS))]
                axes.plot(range(len(sets)), values, color=colour, marker="o", ms=4, lw=1.4, label=run.label)
            axes.set_xticks(range(len(sets)), sets, rotation=35, ha="right", fontsize=8)
            tidy(axes)
        figure.axes[0].set_ylabel("AUROC (%)", fontsize=8)
        shared_legend(figure, columns=3)
        return figure
