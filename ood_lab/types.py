"""What the parts hand to each other. Shape letters: N images, B batch, V views, C classes, D features, K outliers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

# How images of an auxiliary set are trained on: as the ID images are, or with values in [0, 1], not augmented.
OutlierSpace = Literal["normalised", "raw01"]


class Images(NamedTuple):
    """A whole image set: uint8 pixels [N, 3, H, W] and int64 labels [N] (-1 where a set has none)."""

    pixels: Tensor
    labels: Tensor


class Batch(NamedTuple):
    """One step's input. With two views, rows 0..B-1 are the first view and B..2B-1 the second, labels repeated.

    `auxiliary` holds images of the auxiliary set, where there is one; their number is independent of B. `counts` says,
    on the host, how many rows of each class all devices have together.
    """

    images: Tensor
    labels: Tensor
    auxiliary: Tensor | None = None
    counts: np.ndarray | None = None


class BackboneOutput(NamedTuple):
    """Penultimate features [B, D] and logits [B, C]."""

    features: Tensor
    logits: Tensor


class FeatureSet(NamedTuple):
    """What a detector sees of an image set: features [N, D], logits [N, C] and, for ID sets, labels [N]."""

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None


class LinearHead(NamedTuple):
    """The classifier on the penultimate features: weight [C, D], bias [C]."""

    weight: Tensor
    bias: Tensor


class Outliers(NamedTuple):
    """Synthesized outliers: values [K, D], the class each came from [K] (-1 if none), and what the sampler reports.

    `columns` has further numbers of each point [K], by name, which are saved with the points of a finished run.
    """

    values: Tensor
    source_class: Tensor
    info: dict[str, Any]
    columns: Mapping[str, Tensor] = MappingProxyType({})
