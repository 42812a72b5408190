"""Energy of features clipped at a percentile of the training activations (Sun et al. 2021)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from ood_lab.config.ranges import Percentile
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class ReAct(HeadScorer):
    """score = energy of W min(x, c) + b, c the `percentile` of all activations.

    Args:
        percentile: 90 in the paper.
        activations: of which images: "train" as the paper, or "val" (those kept for validation) as OpenOOD.
    """

    def __init__(self, *, percentile: Percentile, activations: Literal["train", "val"]) -> None:
        self.percentile, self.activations = percentile, activations

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        data = train if self.activations == "train" else val
        if data is None:
            raise ValueError("ReAct: activations=val, but no ID images are kept for validation (protocol.id_val)")
        self.threshold = float(np.percentile(data.features.numpy(), self.percentile))

    def _score(self, data: FeatureSet) -> Tensor:
        return self.energy(data.features.clamp(max=self.threshold))
