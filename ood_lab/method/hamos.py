"""HamOS: outliers from Hamiltonian Monte Carlo between classes, beside CE and CIDER (Li & Zhang 2025, Eq. 8)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ood_lab.backbone.base import Backbone
from ood_lab.config.ranges import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ood_lab.feature_bank import FeatureBank
from ood_lab.loss import ood_discernment as discern
from ood_lab.method.cider import CIDER
from ood_lab.optimizer import SGD
from ood_lab.random import generator
from ood_lab.synthesizer.base import Synthesizer
from ood_lab.types import BackboneOutput, Batch, Outliers


class HamOS(CIDER):
    """CIDER's terms + w_ood L_OOD-disc on outliers that `synthesizer` draws from a bank of recent projections.

    Outliers carry no gradient. They train the network through what the loss compares them with: the prototypes of
    this batch before they are detached ("equidistant", "paper_eq7"), the ID rows ("negatives"), or a linear head that
    they train and that trains the ID rows from the next step on ("logistic"). In the released code they do not train
    it at all: its loss is the equidistant form on ID features with detached prototypes ("released"). The term starts
    once every class of the bank is full.

    Args:
        synthesizer: the outlier source; any of them.
        bank_size: rows kept for each class.
        w_ood: lambda_d.
        discernment: the form of the loss, see `ood_lab.loss.ood_discernment`. "logistic" adds a linear head on
            z sqrt(D) (on unit-norm input it does not learn).
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        seed: int,
        synthesizer: Synthesizer,
        *,
        stage: Literal["pretrain", "finetune"],
        trainable: Literal["whole", "layer4_mlp"],
        projection_dim: PositiveInt,
        bank_size: PositiveInt,
        prototype_momentum: Fraction,
        temperature: PositiveFloat,
        w_ce: NonNegativeFloat,
        w_comp: NonNegativeFloat,
        w_disp: NonNegativeFloat,
        w_ood: NonNegativeFloat,
        discernment: Literal["equidistant", "paper_eq7", "logistic", "negatives", "released"],
        optimizer: SGD,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            seed,
            stage=stage,
            trainable=trainable,
            projection_dim=projection_dim,
            prototype_momentum=prototype_momentum,
            temperature=temperature,
            w_ce=w_ce,
            w_comp=w_comp,
            w_disp=w_disp,
            optimizer=optimizer,
        )
        self.synthesizer, self.w_ood, self.discernment = synthesizer, w_ood, discernment
        self.bank = FeatureBank(num_classes, bank_size, projection_dim)
        if discernment == "logistic":
            self.outlier_head = nn.Linear(projection_dim, 1)

    def loss(self, batch: Batch, output: BackboneOutput) -> dict[str, Tensor]:
        terms, z, prototypes = self.id_loss(batch, output)
        total = terms.pop("total")
        terms["ood"] = torch.zeros_like(total)
        if self.bank.full and self.w_ood > 0:
            terms["ood"] = self._discernment(z, batch.labels, prototypes)
            total = total + self.w_ood * terms["ood"]
        self.bank.push(self.gathered(z.detach()), self.gathered(batch.labels))
        return {**terms, "total": total}

    def _discernment(self, z: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
        if self.discernment == "released":
            return discern.equidistant(z, prototypes.detach(), self.temperature)
        outliers = self._sample("synthesis", self.current_epoch, self.trainer.fit_loop.epoch_loop.batch_idx)
        self.info = outliers.info
        values = outliers.values.detach()
        if self.discernment == "equidistant":
            return discern.equidistant(values, prototypes, self.temperature)
        if self.discernment == "paper_eq7":
            return discern.paper_eq7(values, prototypes, self.temperature)
        if self.discernment == "negatives":
            return discern.negatives(z, labels, values, prototypes.detach(), self.temperature)
        scale = z.shape[1] ** 0.5
        id_logits = self.outlier_head(z * scale).squeeze(1)
        return discern.logistic(id_logits, self.outlier_head(values * scale).squeeze(1))

    def outliers(self) -> Outliers | None:
        return self._sample("after training", 0, 0) if self.bank.full else None

    def _sample(self, purpose: str, epoch: int, step: int) -> Outliers:
        draw = generator(self.seed, purpose, epoch, step, device=self.bank.values.device)
        return self.synthesizer.sample(self.bank.values, draw)
