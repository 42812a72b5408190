"""What a training method measures of itself: means of losses, accuracies, what outliers do; part of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from ood_lab.finite import FiniteCheck
from ood_lab.method.distributed import Distributed

# Metrics of the epoch, and what was chosen for it: part of a checkpoint, not of the final weights.
EPOCH_METRICS = ("accuracy.", "means.", "selector.")
LOOK_EVERY = 100  # outlier steps, after which the gradient of the term on outliers is looked at again


class Measured(Distributed):
    """Means over an epoch, the check for finite losses and the account of outlier steps of a training method.

    All of it lives in metrics and buffers, so that a run resumed within an epoch reports the same; nothing here waits
    for the device before an epoch ends.

    Args:
        classes: number of ID classes.
    """

    outlier_steps: Tensor
    outlier_gradient: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.info: dict[str, Tensor] = {}  # what the source of the last step reports
        self.last_summary: dict[str, float] = {}  # what `epoch_summary` gave last
        # Steps in which the term on outliers took part, and the norm of its gradient on the features when it was last
        # looked at.
        self.register_buffer("outlier_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("outlier_gradient", torch.zeros(()))
        self._outlier_steps_host = 0
        self.accuracy = nn.ModuleDict(
            {
                f"{split}_accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False)
                for split in ("train", "val")
            }
        )
        self.means = nn.ModuleDict()  # of each term that has taken part so far
        for metric in self._metrics().values():
            metric.persistent(True)  # so that a run resumed within an epoch reports the same means
        self._finite = FiniteCheck()

    def _count_outlier_step(self, weighted: Sequence[Tensor], features: Tensor) -> None:
        """Count a step with outliers; in the 1st, 101st, ... look at what the term does to the features.

        `features` are those of the backbone, from which the logits come, too: a copy in float32 would hide these.
        """
        self._outlier_steps_host += 1
        self.outlier_steps += 1
        if self._outlier_steps_host % LOOK_EVERY != 1 or not features.requires_grad:
            return
        term = sum(weighted, features.new_zeros(()))
        (gradient,) = torch.autograd.grad(term, features, retain_graph=True, allow_unused=True)
        if gradient is None:
            return
        squares = gradient.float().square().sum()
        if self._world() > 1:
            everywhere = self.all_gather(squares)
            assert isinstance(everywhere, Tensor)
            squares = everywhere.sum() / self._world() ** 2  # each device's term is a mean over its own rows
        self.outlier_gradient.copy_(squares.sqrt())

    def _metrics(self) -> dict[str, Metric]:
        named = {**dict(self.means.items()), **dict(self.accuracy.items())}
        return {name: metric for name, metric in named.items() if isinstance(metric, Metric)}

    def _mean(self, loss: str) -> MeanMetric:
        """The running mean of a scalar over the epoch's steps in which it was there."""
        name = f"{loss}_mean"
        if name not in self.means:
            mean = MeanMetric(nan_strategy="disable").to(self.device)  # looking for NaN waits for the device
            mean.persistent(True)
            self.means[name] = mean
        found = self.means[name]
        assert isinstance(found, MeanMetric)
        return found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what is known on the host, and make room for the means that a checkpoint has."""
        self._outlier_steps_host = int(checkpoint["state_dict"]["outlier_steps"])
        for key in checkpoint["state_dict"]:
            if key.startswith("means."):
                self._mean(key.split(".")[1].removesuffix("_mean"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._finite.settle()

    def on_train_epoch_end(self) -> None:
        self._finite.settle()

    def epoch_summary(self) -> dict[str, float]:
        """Mean losses and accuracies since the last call; resets them."""
        summary = {}
        for name, metric in self._metrics().items():
            if metric.update_called:
                summary[name] = float(metric.compute())
            metric.reset()
        self.last_summary = summary
        return summary
