"""Score of Generalized ODIN, from the numerator of its decomposed confidence (Hsu et al. 2020)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat
from ood_lab.scorer.base import InputScorer
from ood_lab.scorer.msp import uncertainty
from ood_lab.types import FeatureSet


class GODIN(InputScorer):
    """score = -max_c h_c(x'), x' = x + epsilon sign(d max_c h_c(x) / dx), of a network with logits h_c(x) / g(x).

    epsilon is in units of pixels in 0..1, divided by each channel's deviation in the network's input.

    Args:
        epsilon: chosen on ID validation images in the paper, from 0.0025 times 0, 1, 2, 4, 8, ...; 0.0025 in OpenOOD.
        confidence: "numerator" for the paper's score; "softmax" for OpenOOD's, 1 - max_c softmax(h(x'))_c.
    """

    by_name_only = True
    space = "numerator"

    def __init__(self, *, epsilon: NonNegativeFloat, confidence: Literal["numerator", "softmax"]) -> None:
        self.epsilon, self.confidence = epsilon, confidence

    def objective(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs["numerator"].amax(1)

    def change(self) -> str:
        return f"godin epsilon={self.epsilon}"

    def _score(self, data: FeatureSet) -> Tensor:
        if self.confidence == "softmax":
            return uncertainty(data.features.double())
        return -data.features.amax(1)
