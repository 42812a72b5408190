"""What a training method measures of itself: means of losses, accuracies, what outliers do; part of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ood_lab.epoch_means import EpochMeans
from ood_lab.finite import FiniteCheck
from ood_lab.method.distributed import Distributed

# Metrics of the epoch, and what was chosen for it: part of a checkpoint, not of the final weights.
EPOCH_METRICS = ("accuracy.", "means.", "selector.")
SPLITS = ("train", "val")
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
            {f"{split}_accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False) for split in SPLITS}
        )
        self.means = EpochMeans()  # of each term that has taken part so far
        for split in SPLITS:
            self._accuracy(split).persistent(True)
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

    def _accuracy(self, split: str) -> Metric:
        """That of the "train" or "val" images of the epoch so far."""
        found = self.accuracy[f"{split}_accuracy"]
        assert isinstance(found, Metric)
        return found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over what is known on the host, and make room for the means that a checkpoint has."""
        self._outlier_steps_host = int(checkpoint["state_dict"]["outlier_steps"])
        self.means.make_room(checkpoint, self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._finite.settle()

    def on_train_epoch_end(self) -> None:
        self._finite.settle()

    def epoch_summary(self) -> dict[str, float]:
        """Mean losses and accuracies since the last call; resets them."""
        summary = self.means.summary()
        for split in SPLITS:
            metric = self._accuracy(split)
            if metric.update_called:
                summary[f"{split}_accuracy"] = float(metric.compute())
            metric.reset()
        self.last_summary = summary
        return summary
