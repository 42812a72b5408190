"""Outlier Exposure: cross-entropy on ID images, uniform predictions on auxiliary images (Hendrycks et al. 2019)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from ood_lab.backbone.base import Backbone
from ood_lab.config.ranges import NonNegativeFloat
from ood_lab.loss.outlier_exposure import outlier_exposure
from ood_lab.method.base import Method
from ood_lab.optimizer import SGD
from ood_lab.types import BackboneOutput, Batch


class OE(Method):
    """CE + w_oe L_OE; both halves pass the network as one batch, so that they share batch statistics.

    Args:
        w_oe: lambda; 0.5 in the paper.
    """

    uses_auxiliary = True

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        seed: int,
        *,
        stage: Literal["pretrain", "finetune"],
        w_oe: NonNegativeFloat,
        optimizer: SGD,
    ) -> None:
        super().__init__(backbone, num_classes, seed, stage=stage, optimizer=optimizer)
        self.w_oe = w_oe

    def loss(self, batch: Batch, output: BackboneOutput) -> dict[str, Tensor]:
        rows = len(batch.labels)
        ce = F.cross_entropy(output.logits[:rows], batch.labels)
        oe = outlier_exposure(output.logits[rows:])
        return {"ce": ce, "oe": oe, "total": ce + self.w_oe * oe}
