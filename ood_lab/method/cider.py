"""CIDER fine-tuning with the class head kept (Ming et al. 2023; the comparison of HamOS, section 4.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.backbone.base import Backbone
from ood_lab.config.ranges import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ood_lab.loss.cider import compactness, dispersion, update_prototypes
from ood_lab.method.base import Method
from ood_lab.optimizer import SGD
from ood_lab.types import BackboneOutput, Batch


class CIDER(Method):
    """w_ce CE + w_comp L_comp + w_disp L_disp on two views, with a projection head beside the class head.

    Prototypes are moving averages of the projections; dispersion trains the network through the batch's share of
    them, compactness takes them detached (as the public codes do). They begin as class means of 100 training images
    a class without augmentation (CIDER takes the training set, the HamOS release its validation images).

    Args:
        trainable: the "whole" network, or "layer4_mlp": a ResNet's last stage and the heads, as HamOS's text has it on
            ImageNet-1K (section D.2; its release freezes nothing). Batch statistics below follow the batches all the
            same, as in OpenOOD's trainers.
        projection_dim: D of the sphere.
        prototype_momentum: m of the moving average, applied row by row.
        temperature: tau.
        w_ce, w_comp, w_disp: weights, 0 allowed. HamOS's text has 1, 0.5, 1; its release 1, 1.43, 0.5.
    """

    views = 2
    PROTOTYPE_IMAGES = 100

    prototypes: Tensor
    has_prototypes: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        seed: int,
        *,
        stage: Literal["pretrain", "finetune"],
        trainable: Literal["whole", "layer4_mlp"],
        projection_dim: PositiveInt,
        prototype_momentum: Fraction,
        temperature: PositiveFloat,
        w_ce: NonNegativeFloat,
        w_comp: NonNegativeFloat,
        w_disp: NonNegativeFloat,
        optimizer: SGD,
    ) -> None:
        super().__init__(backbone, num_classes, seed, stage=stage, optimizer=optimizer)
        if trainable == "layer4_mlp":
            backbone.freeze_below_last_stage()
        width = backbone.feature_dim
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection_dim))
        self.momentum, self.temperature = prototype_momentum, temperature
        self.w_ce, self.w_comp, self.w_disp = w_ce, w_comp, w_disp
        self.register_buffer("prototypes", torch.zeros(num_classes, projection_dim))
        self.register_buffer("has_prototypes", torch.zeros((), dtype=torch.bool))

    def project(self, features: Tensor) -> Tensor:
        """Unit-norm projections."""
        return F.normalize(self.projector(features).float(), dim=1)

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        features, logits = self.backbone(images)
        return {"features": features, "logits": logits, "projection": self.project(features)}

    def loss(self, batch: Batch, output: BackboneOutput) -> dict[str, Tensor]:
        return self.id_loss(batch, output)[0]

    def id_loss(self, batch: Batch, output: BackboneOutput) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The terms on ID data, the projections, and the updated prototypes with their graph."""
        z = self.project(output.features)
        prototypes = update_prototypes(self.prototypes, self.gathered(z), self.gathered(batch.labels), self.momentum)
        self.prototypes.copy_(prototypes.detach())
        terms = {
            "ce": F.cross_entropy(output.logits, batch.labels),
            "comp": compactness(z, batch.labels, self.prototypes.clone(), self.temperature),
            "disp": dispersion(prototypes, self.temperature),
        }
        terms["total"] = self.w_ce * terms["ce"] + self.w_comp * terms["comp"] + self.w_disp * terms["disp"]
        return terms, z, prototypes

    def on_train_start(self) -> None:
        if not self.has_prototypes:
            self.prototypes.copy_(self._class_means())
            self.has_prototypes.fill_(True)

    @torch.no_grad()
    def _class_means(self) -> Tensor:
        sums = torch.zeros_like(self.prototypes)
        self.eval()
        for batch in self.trainer.datamodule.train_sample(self.PROTOTYPE_IMAGES):  # type: ignore[attr-defined]
            sums.index_add_(0, batch.labels, self.project(self.backbone(batch.images).features))
        self.train()
        return F.normalize(sums, dim=1)
