"""Stepping, logging and seeding, shared by every method; a method itself is its `loss`."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from ood_lab.backbone.base import Backbone
from ood_lab.errors import RunError
from ood_lab.optimizer import SGD
from ood_lab.random import derive_seed
from ood_lab.types import BackboneOutput, Batch, Outliers

# Running means of the epoch: part of a checkpoint, not of the final weights.
RUNNING = ("accuracy.", "means.")


class Method(L.LightningModule):
    """A training objective on a backbone.

    A subclass writes `loss` and declares `views`, whether it `uses_auxiliary` images, and the tensor that it `gives`
    its own detector (see `extract`). What lives across steps is a buffer of fixed shape, so that a checkpoint holds it;
    random draws come from the global generator, seeded here at every step.

    Args:
        backbone: the network.
        num_classes: ID classes.
        seed: of the run.
        stage: "pretrain" or "finetune"; recorded with the results, and picks the data set's number of epochs.
        optimizer: its settings.
    """

    views = 1
    uses_auxiliary = False
    gives = ""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        seed: int,
        *,
        stage: Literal["pretrain", "finetune"],
        optimizer: SGD,
    ) -> None:
        super().__init__()
        self.backbone, self.num_classes, self.seed = backbone, num_classes, seed
        self.stage, self.settings = stage, optimizer
        self.info: dict[str, Tensor] = {}  # what the last step reports besides its losses
        self.accuracy = nn.ModuleDict(
            {f"{split}_accuracy": MulticlassAccuracy(num_classes, average="micro") for split in ("train", "val")}
        )
        self.means = nn.ModuleDict()  # of each term that `loss` has returned so far
        for metric in self._metrics().values():
            metric.persistent(True)  # so that a run resumed within an epoch reports the same means

    def _metrics(self) -> dict[str, Metric]:
        named = {**dict(self.means.items()), **dict(self.accuracy.items())}
        return {name: metric for name, metric in named.items() if isinstance(metric, Metric)}

    def _mean(self, term: str) -> MeanMetric:
        """The running mean of a term over the epoch."""
        name = f"{term}_mean"
        if name not in self.means:
            mean = MeanMetric().to(self.device)
            mean.persistent(True)
            self.means[name] = mean
        found = self.means[name]
        assert isinstance(found, MeanMetric)
        return found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the means of the terms that a checkpoint knows, before it is loaded."""
        for key in checkpoint["state_dict"]:
            if key.startswith("means."):
                self._mean(key.split(".")[1].removesuffix("_mean"))

    def loss(self, batch: Batch, output: BackboneOutput) -> dict[str, Tensor]:
        """The terms of the objective; `total` is what is minimised.

        Args:
            batch: the step's images and labels.
            output: of the network for the ID images and, behind them, the auxiliary ones.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss()")

    def forward(self, images: Tensor) -> BackboneOutput:
        return self.backbone(images)

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """What detectors may see of a batch: features, logits, and a projection where the method trains one."""
        features, logits = self.backbone(images)
        return {"features": features, "logits": logits}

    def outliers(self) -> Outliers | None:
        """A batch of the outliers that training uses now; None for a method without any."""
        return None

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all devices [W * n, ...] in the order in which one device would have them; with their gradient.

        What lives across steps (prototypes, a bank) must be written from all rows: between devices, buffers are
        overwritten by those of the first. Each device's loss is then a mean over its own rows plus terms of the
        gathered ones, and averaging the gradients gives those of one device with the whole batch.
        """
        world = self.trainer.world_size if self._trainer is not None else 1
        if world == 1:
            return rows
        everywhere = self.all_gather(rows, sync_grads=rows.requires_grad)
        assert isinstance(everywhere, Tensor)
        # [W, V * b, ...]: device r holds rows r, r + W, ... of each view.
        split = everywhere.unflatten(1, (self.views, -1))
        return split.movedim(0, 2).flatten(0, 2)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(derive_seed(self.seed, "step", self.current_epoch, batch_idx))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images = batch.images if batch.auxiliary is None else torch.cat([batch.images, batch.auxiliary])
        output = self.backbone(images)
        output = BackboneOutput(output.features.float(), output.logits.float())
        # Mixed precision is for the backbone: losses and samplers compare cosines to more digits than bfloat16 has.
        with torch.autocast(self.device.type, enabled=False):
            losses = self.loss(batch, output)
        if "total" not in losses:
            raise RunError(
                f"{type(self).__name__}.loss returned {', '.join(losses) or 'nothing'}, but not 'total', which is "
                "minimised; add it"
            )
        if not torch.isfinite(losses["total"]):
            terms = ", ".join(f"{name} = {value.item():.6g}" for name, value in losses.items())
            raise RunError(
                f"non-finite loss at step {self.global_step} (epoch {self.current_epoch}): {terms}. "
                "Lower method.optimizer.lr, or the weight of the term that grew; "
                "with trainer.precision=16-mixed try bf16-mixed or 32-true."
            )
        metrics = self._metrics()
        metrics["train_accuracy"].update(output.logits[: len(batch.labels)].detach(), batch.labels)
        for name, value in losses.items():
            self._mean(name).update(value.detach())
        return {"loss": losses["total"], **{k: v.detach() for k, v in losses.items()}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._metrics()["val_accuracy"].update(self.backbone(batch.images).logits.float(), batch.labels)

    def epoch_summary(self) -> dict[str, float]:
        """Mean losses and accuracies since the last call; resets them."""
        summary = {}
        for name, metric in self._metrics().items():
            if metric.update_called:
                summary[name] = float(metric.compute())
            metric.reset()
        return summary

    def configure_optimizers(self) -> Any:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert self.trainer.max_epochs is not None
        return self.settings.configure(self.parameters(), data.steps_per_epoch * self.trainer.max_epochs)
