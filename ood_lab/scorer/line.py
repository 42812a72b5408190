"""Energy through the neurons and weights that matter to the predicted class (Ahn et al. 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ood_lab.config.ranges import Percentile, PositiveFloat
from ood_lab.geometry.gaussian import class_means
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class LINe(HeadScorer):
    """score = energy of (W * M_c) (min(x, clip) * m_c) + b, c the class that the clipped features predict.

    S_cd = W_cd E[x_d | class c] is neuron d's first-order Shapley value for class c (of a linear head it is exact).
    m_c keeps the neurons whose S_cd lies above `neurons` percent of class c's, M_c the weights W_kd whose |S_cd| W_kd
    lies above `weights` percent of them.

    Fitted on the training features with their labels; a class that does not occur has S_c = 0, so that nothing is kept
    and its images score by the bias alone.

    Args:
        neurons: percentile of the neurons dropped: 90 on CIFAR-10, 10 on CIFAR-100 and ImageNet in the authors' code.
        weights: percentile of the weights dropped: 90 on CIFAR, 10 on ImageNet.
        clip: largest activation: 1.0 on CIFAR (DenseNet), 0.8 on ImageNet (ResNet-50).
    """

    requires = ("head", "labels")

    def __init__(self, *, neurons: Percentile, weights: Percentile, clip: PositiveFloat) -> None:
        self.neurons, self.weights, self.clip = neurons, weights, clip

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        assert train.labels is not None
        weight = self.head.weight
        means, _ = class_means(train.features, train.labels)
        of_class = torch.zeros_like(weight)
        of_class[train.labels.unique()] = means.to(weight.dtype)
        shapley = weight * of_class
        limits = np.percentile(shapley.numpy(), self.neurons, axis=1)
        self._neurons = shapley > torch.from_numpy(limits).to(shapley)[:, None]
        self._importance = shapley.abs()
        # One class's weights at a time, here and in `_score`: all of them together would be C x C x D.
        limits = np.array([np.percentile((row * weight).numpy(), self.weights) for row in self._importance])
        self._limits = torch.from_numpy(limits).to(weight)

    def _score(self, data: FeatureSet) -> Tensor:
        x = data.features.clamp(max=self.clip)
        predicted = (x @ self.head.weight.T + self.head.bias).argmax(1)
        scores = x.new_empty(len(x))
        for c in predicted.unique():
            rows = predicted == c
            kept = self._importance[c] * self.head.weight > self._limits[c]
            weight = self.head.weight * kept * self._neurons[c]
            scores[rows] = self.energy(x[rows], weight)
        return scores
