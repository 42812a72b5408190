"""What figures are drawn from: arrays and names, read from run directories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
SYNTHESIZED = "synthesized"  # the name of a run's outliers among its scored sets


class RunMaterial(NamedTuple):
    """One run: what it is called, its curves, scores and features."""

    label: str
    curves: Sequence[Mapping[str, float]]
    scores: Mapping[str, Mapping[str, Array]]  # scorer -> set -> [N]; "test" is ID
    features: Mapping[str, Array]  # set -> [N, D] in the space that the method trains; "test" is ID
    labels: NDArray[np.int64]  # of "test"
    outliers: Array | None  # synthesized [K, D] in the same space; scored they are the set SYNTHESIZED
    columns: Mapping[str, Array] = MappingProxyType({})  # of the outliers, what the sampler says of each [K]
    radii: Mapping[str, Mapping[str, Array]] = MappingProxyType({})  # scorer -> set -> local radius [N]
    auroc: Mapping[str, Mapping[str, float]] = MappingProxyType({})  # as stored: scorer -> OOD set -> 0..1
    # Draws outliers from the finished run's bank with other options of its synthesizer: their columns.
    redraw: Callable[[Mapping[str, Any]], Mapping[str, Array]] | None = None
    # Of a run with outlier images: some of them as its network sees them (`ood_lab.task.outlier_images`).
    outlier_images: Callable[[], Mapping[str, NDArray[Any]]] | None = None
    # Of a run with decoded outlier images: what its decoder makes of outliers (`ood_lab.task.decoded_outliers`).
    decoded_outliers: Callable[[], Mapping[str, NDArray[Any]]] | None = None
    classes: Sequence[str] = ()  # the names of the ID classes, where they have some


class Material(NamedTuple):
    """Everything a report draws: the needed runs first, then the run itself; and which OOD sets are near or far."""

    runs: Sequence[RunMaterial]
    groups: Mapping[str, str]
