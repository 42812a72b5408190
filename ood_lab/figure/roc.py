"""ROC curves of each detector, one line an OOD set."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import DASHES, DetectorPanels, shown
from ood_lab.results.material import Array


def roc_curve(id_scores: Array, ood_scores: Array, points: int) -> tuple[Array, Array]:
    """Share of ID flagged and of OOD caught at `points` thresholds spread evenly over the ranks of all scores."""
    ordered = np.sort(np.concatenate([id_scores, ood_scores]))[::-1]
    thresholds = ordered[np.linspace(0, len(ordered) - 1, points).astype(int)]
    flagged = 1 - np.searchsorted(np.sort(id_scores), thresholds) / len(id_scores)
    caught = 1 - np.searchsorted(np.sort(ood_scores), thresholds) / len(ood_scores)
    return np.append(0, flagged), np.append(0, caught)


def auroc(id_scores: Array, ood_scores: Array) -> float:
    """P(OOD score > ID score), ties counted half."""
    ordered = np.sort(id_scores)
    below = np.searchsorted(ordered, ood_scores, "left") + np.searchsorted(ordered, ood_scores, "right")
    return float(below.mean() / (2 * len(ordered)))


class ROC(DetectorPanels):
    """A panel for each run and detector; the legend has the AUROC in percent.

    Args:
        points: thresholds a curve.
    """

    title = "ROC curves"
    caption = (
        "Share of OOD images caught (up) against ID images flagged (right), OOD as the positive class; after each set "
        "its AUROC in percent. The dotted lines mark 95 % of OOD caught, where FPR95 (OOD+) is read, and 5 % of ID "
        "flagged, where FPR95 (ID+) is."
    )
    size = (2.9, 2.9)
    shared = MappingProxyType({"sharex": True, "sharey": True})
    own_legends = True

    def __init__(self, *, points: PositiveInt) -> None:
        self.points = points

    def panel(self, axes: Axes, values: Mapping[str, Array], palette: Mapping[str, str]) -> None:
        axes.axhline(0.95, color="0.7", lw=0.8, ls=":")
        axes.axvline(0.05, color="0.7", lw=0.8, ls=":")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xlabel("ID images flagged", fontsize=8)
        run = axes.get_ylabel()  # the first panel of a row is marked with its run
        axes.set_ylabel(f"{run}\nOOD images caught" if run else "OOD images caught", fontsize=8)
        for number, (name, colour) in enumerate(palette.items()):
            if name in values:
                curve = roc_curve(values["test"], values[name], self.points)
                label = f"{shown(name)} {100 * auroc(values['test'], values[name]):.1f}"
                axes.plot(*curve, color=colour, ls=DASHES[number % len(DASHES)], lw=1.3, label=label)
