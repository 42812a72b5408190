"""Generalized ODIN's head: logits as a quotient of two functions of the features (Hsu et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.head.base import Head
from ood_lab.types import LinearHead

Numerator = Literal["cosine", "inner", "euclidean"]


class Quotient(Head):
    """logits_c = h_c(z) / g(z), g = sigmoid(BN(w z + b)); detectors are given h as "numerator".

    Softmax cross-entropy on the quotient; the backbone's own last layer idles. h is trained without weight decay, as in
    both public codes. OpenOOD's never lowers the learning rate of h, which is not rebuilt.

    Args:
        numerator: h_c is the cosine of z and w_c; their "inner" product with a bias; or -mean_d (z_d - w_cd)^2
            ("euclidean").
    """

    gives: ClassVar[tuple[str, ...]] = ("numerator",)
    linear: ClassVar[bool] = False
    undecayed: ClassVar[tuple[str, ...]] = ("numerator",)

    def __init__(
        self, width: int, projects: bool, classes: int, *, numerator: Numerator = "cosine", **options: Any
    ) -> None:
        super().__init__(width, projects, classes, **options)
        self.kind = numerator
        self.numerator = nn.Linear(width, classes, bias=numerator == "inner")
        nn.init.kaiming_normal_(self.numerator.weight, nonlinearity="relu")
        if numerator == "inner":
            nn.init.zeros_(self.numerator.bias)
        self.denominator = nn.Sequential(nn.Linear(width, 1), nn.BatchNorm1d(1), nn.Sigmoid())

    def h(self, features_BD: Tensor) -> Tensor:
        """The numerators [B, C], in float32."""
        with torch.autocast(features_BD.device.type, enabled=False):
            z_BD, w_CD = features_BD.float(), self.numerator.weight
            if self.kind == "inner":
                return self.numerator(z_BD)
            if self.kind == "cosine":
                return F.linear(_unit(z_BD), _unit(w_CD))
            # |z - w|^2 = |z|^2 - 2 z w + |w|^2
            squares = z_BD.square().sum(1, keepdim=True) + w_CD.square().sum(1) - 2 * F.linear(z_BD, w_CD)
            return -squares / z_BD.shape[1]

    def outputs(self, features_BD: Tensor, of_backbone: Tensor) -> Tensor:
        with torch.autocast(features_BD.device.type, enabled=False):
            return self.h(features_BD) / self.denominator(features_BD.float())

    def tested(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"logits": outputs, "numerator": self.h(features_BD)}

    @staticmethod
    def owner(parameter: str) -> str:
        return "z" if parameter.startswith("projector.") else "logits"

    @classmethod
    def classifier(cls, weights: Mapping[str, Tensor]) -> LinearHead:
        """The numerator's weights: no detector that needs a linear classifier is let in."""
        weight = weights["head.numerator.weight"]
        return LinearHead(weight, weights.get("head.numerator.bias", weight.new_zeros(len(weight))))


def _unit(rows: Tensor) -> Tensor:
    """Rows over their norm, with the public codes' guard against zeros."""
    return rows / (rows.norm(dim=1, keepdim=True) + 1e-4)
