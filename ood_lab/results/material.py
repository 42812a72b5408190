"""What figures are drawn from: arrays and names, read from run directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


class RunMaterial(NamedTuple):
    """One run: what it is called, its curves, scores and features."""

    label: str
    curves: Sequence[Mapping[str, float]]
    scores: Mapping[str, Mapping[str, Array]]  # scorer -> set -> [N]; "test" is ID
    features: Mapping[str, Array]  # set -> [N, D] in the space that the method trains; "test" is ID
    labels: NDArray[np.int64]  # of "test"
    outliers: Array | None  # synthesized [K, D]


class Material(NamedTuple):
    """Everything a report draws: the needed runs first, then the run itself; and which OOD sets are near or far."""

    runs: Sequence[RunMaterial]
    groups: Mapping[str, str]
