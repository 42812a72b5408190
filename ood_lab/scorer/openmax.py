"""Probability of an unknown class by extreme-value statistics of the logits (Bendale & Boult 2016)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveInt
from ood_lab.geometry.gaussian import class_means
from ood_lab.scorer.base import Scorer
from ood_lab.types import FeatureSet

# libMR, which the authors' code calls, fits a tail shifted so that its smallest value lies here.
SHIFT = 10_000.0
STEEPEST = 30.0  # logarithm of the largest shape that is looked for


class OpenMax(Scorer):
    """score = log odds of the unknown class: v_0 - logsumexp_c v_c.

    For the `alpha` largest logits of an image, of rank r = 1, 2, ..., a part w_c (alpha + 1 - r) / alpha of logit c
    is taken from v_c and added to v_0; w_c is the Weibull probability of the image's distance to the mean logit vector
    of class c, from the `tail` largest distances of its rightly classified training images. In float64. The probability
    itself, which the authors give, has the same order but collapses to ties near 1.

    Fitted on the training logits with their labels. A class of which no training image is classified rightly is never
    revised. pytorch-ood takes wrongly classified images in; OpenOOD returns the whole probability vector.

    Args:
        tail: 20 in the authors' code and in OpenOOD.
        alpha: 10 in the authors' code (1,000 classes), 3 in OpenOOD; at most all classes.
        distance: "euclidean" (OpenOOD), or "eucos", which is |x - m| / 200 + 1 - cos(x, m) (the authors).
    """

    requires = ("labels",)

    def __init__(self, *, tail: PositiveInt, alpha: PositiveInt, distance: Literal["euclidean", "eucos"]) -> None:
        self.tail, self.alpha, self.distance = tail, alpha, distance

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        assert train.labels is not None
        x = train.logits.double()
        right = x.argmax(1) == train.labels
        if not right.any():
            raise ValueError("OpenMax: no training image is classified rightly; the network is not trained")
        x, labels = x[right], train.labels[right]
        self._classes = labels.unique()
        self._means, rank = class_means(x, labels)
        away = self._distances(x).gather(1, rank[:, None]).squeeze(1)
        fits = [weibull(away[rank == c].sort().values[-self.tail :].numpy()) for c in range(len(self._classes))]
        self._least, self._shape, self._log_scale = (x.new_tensor(column) for column in zip(*fits, strict=True))

    def _distances(self, logits: Tensor) -> Tensor:
        """From each row [N, C] to each mean [K, C]: [N, K]."""
        euclidean = torch.cdist(logits, self._means)
        if self.distance == "euclidean":
            return euclidean
        return euclidean / 200 + 1 - F.normalize(logits, dim=1) @ F.normalize(self._means, dim=1).T

    def _score(self, data: FeatureSet) -> Tensor:
        x = data.logits.double()
        shifted = (self._distances(x) - self._least + SHIFT).clamp(min=torch.finfo(x.dtype).tiny)
        unlike = -torch.expm1(-(self._shape * (shifted.log() - self._log_scale)).exp())
        w = torch.zeros_like(x)
        w[:, self._classes] = unlike
        alpha = min(self.alpha, x.shape[1])
        weights = torch.arange(alpha, 0, -1, dtype=x.dtype) / alpha
        top = x.topk(alpha)
        w = w * torch.zeros_like(x).scatter(1, top.indices, weights.expand_as(top.indices))
        return (x * w).sum(1) - (x * (1 - w)).logsumexp(1)


def weibull(tail: NDArray[np.float64]) -> tuple[float, float, float]:
    """Maximum-likelihood Weibull of ascending distances [T] shifted to `SHIFT`: (smallest, shape, log of the scale).

    The shape k solves sum x^k log x / sum x^k - mean log x = 1/k. Where all distances are equal it is a step.
    """
    y = np.log(tail - tail[0] + SHIFT)

    def excess(log_k: float) -> float:
        power = np.exp(np.exp(log_k) * (y - y[-1]))
        return float((power * y).sum() / power.sum() - y.mean() - np.exp(-log_k))

    k = np.exp(brentq(excess, -STEEPEST, STEEPEST)) if excess(STEEPEST) > 0 else np.exp(STEEPEST)
    log_scale = y[-1] + np.log(np.exp(k * (y - y[-1])).mean()) / k
    return float(tail[0]), float(k), float(log_scale)
