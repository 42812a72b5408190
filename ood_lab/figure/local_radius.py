"""How many images of each set keep their verdict within a radius, to first order (GReg, Eq. 4)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from ood_lab.config.ranges import PositiveInt
from ood_lab.figure.base import ID_COLOUR, DetectorPanels, shown
from ood_lab.results.material import Array

SHOWN = 95  # percentile of the radii at which the axis ends


class LocalRadius(DetectorPanels):
    """A panel for each run and each detector in `local_radius`: the share of a set's images with a larger radius.

    Args:
        points: radii at which a curve is drawn.
    """

    title = "Local radius"
    caption = (
        "Share of images whose verdict is right and would stay so within a radius: the margin to the threshold over "
        "the norm of the score's gradient with respect to the normalised image. Where a curve begins is the share of "
        "right verdicts. A first-order estimate, not a certificate: no Lipschitz bound is taken."
    )

    size = (3.3, 2.6)
    of = "radii"
    shared = MappingProxyType({"sharey": True})

    def __init__(self, *, points: PositiveInt) -> None:
        self.points = points

    def panel(self, axes: Axes, values: Mapping[str, Array], palette: Mapping[str, str]) -> None:
        finite = np.concatenate([radii[np.isfinite(radii)] for radii in values.values()])
        end = np.percentile(finite, SHOWN) if len(finite) else 0
        at = np.linspace(0, end if end > 0 else 1, self.points)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("radius", fontsize=8)
        axes.set_ylabel(axes.get_ylabel() or "share of images", fontsize=8)
        if "test" in values:
            axes.plot(at, _share_above(values["test"], at), color=ID_COLOUR, lw=1.6, label="ID test")
        for name, colour in palette.items():
            if name in values:
                axes.plot(at, _share_above(values[name], at), color=colour, lw=1.3, label=shown(name))


def _share_above(radii: np.ndarray, at: np.ndarray) -> np.ndarray:
    share: np.ndarray = 1 - np.searchsorted(np.sort(radii), at, side="right") / len(radii)
    return share
