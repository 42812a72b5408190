"""Softmax at a high temperature, of images moved towards their prediction (Liang et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat, PositiveFloat
from ood_lab.scorer.base import InputScorer
from ood_lab.scorer.msp import uncertainty
from ood_lab.types import FeatureSet


class ODIN(InputScorer):
    """score = 1 - max_c softmax(logits(x') / T)_c, x' = x + epsilon sign(d log max_c softmax(logits(x) / T)_c / dx).

    epsilon is in units of pixels in 0..1: in the network's normalised input it is divided by each channel's deviation,
    as the authors' code and OpenOOD do; pytorch-ood only with its `norm_std`. With epsilon = 0 no pass is needed.

    Args:
        temperature: T; 1000 in the paper and in OpenOOD, 10,000 in HamOS.
        epsilon: 0.0014 in the paper (DenseNet, CIFAR-10) and in OpenOOD; HamOS states 0.14.
    """

    def __init__(self, *, temperature: PositiveFloat, epsilon: NonNegativeFloat) -> None:
        self.temperature, self.epsilon = temperature, epsilon

    def objective(self, outputs: dict[str, Tensor]) -> Tensor:
        return (outputs["logits"] / self.temperature).log_softmax(1).amax(1)

    def change(self) -> str:
        return f"odin temperature={self.temperature} epsilon={self.epsilon}"

    def _score(self, data: FeatureSet) -> Tensor:
        return uncertainty(data.logits.double() / self.temperature)
