"""Residual outside the principal subspace as a virtual logit (Wang et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.scorer.base import HeadScorer
from ood_lab.types import FeatureSet


class ViM(HeadScorer):
    """score = alpha |R'(x - o)| - logsumexp(logits), in float64.

    o = -W^+ b; R spans what is left of the training features' principal subspace around o; alpha = mean largest logit
    / mean residual over the training features.

    Args:
        dim: of the principal subspace; None for the authors' rule (1000 from 2048 features on, 512 from 768 on, else
            half). OpenOOD has 256.
    """

    def __init__(self, *, dim: PositiveInt | None) -> None:
        self.dim = dim

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        width = train.features.shape[1]
        dim = self.dim if self.dim is not None else 1000 if width >= 2048 else 512 if width >= 768 else width // 2
        if dim >= width:
            raise ValueError(f"ViM: dim={dim} leaves nothing of {width} features; choose a smaller one")
        weight, bias = self.head.weight.double(), self.head.bias.double()
        self.origin = -torch.linalg.pinv(weight) @ bias
        x = train.features.double() - self.origin
        _, vectors = torch.linalg.eigh(x.T @ x / len(x))
        self.residual = vectors[:, : width - dim]  # eigh gives ascending values
        rest = float((x @ self.residual).norm(dim=1).mean())
        # With no more rows than dimensions the features fill their subspace: what is left is rounding, of which the sum
        # over all rows and dimensions makes a hundredfold at most.
        if rest <= 100 * float(x.norm(dim=1).mean()) * width * torch.finfo(x.dtype).eps:
            raise ValueError(
                f"ViM: the {len(x)} training features have nothing outside {dim} dimensions; use a smaller dim, as in "
                f"scorer.vim.dim={max(1, min(dim, len(x)) // 2)}"
            )
        self.alpha = float(train.logits.double().amax(1).mean()) / rest

    def _score(self, data: FeatureSet) -> Tensor:
        virtual = ((data.features.double() - self.origin) @ self.residual).norm(dim=1)
        return self.alpha * virtual - data.logits.double().logsumexp(1)
