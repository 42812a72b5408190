"""What the training of a network that makes images is to the rest of the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from ood_lab.config.ranges import NonNegativeInt, PositiveInt
from ood_lab.epoch_means import EpochMeans
from ood_lab.errors import NotDefinedError
from ood_lab.finite import FiniteCheck
from ood_lab.random import generator
from ood_lab.types import Batch


class GeneratorTraining(L.LightningModule):
    """Trains a network that makes images of the ID set's classes; a subclass defines `step` and `configure_optimizers`.

    Every random number of a step comes from a generator seeded by (seed, epoch, step), and all that lives across steps
    is in the checkpoint, so that a run killed within an epoch goes on to the same bits.

    Args:
        classes: their names.
        epochs: how long it trains.
        images_per_step: of the ID set.
        seed: of weights, order and noise; the network does not depend on a run's seed.
    """

    # Groups of the experiment that depends on it which it depends on, too.
    inherits: ClassVar[tuple[str, ...]] = ("dataset",)
    # Groups that runs which it depends on depend on.
    passes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, classes: Sequence[str], *, epochs: PositiveInt, images_per_step: PositiveInt, seed: NonNegativeInt
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.classes, self.epochs, self.images_per_step, self.seed = tuple(classes), epochs, images_per_step, seed
        self.info: dict[str, Tensor] = {}
        self.means = EpochMeans()
        self._finite = FiniteCheck()

    @property
    def averaged(self) -> nn.Module:
        """The network that is kept when training has ended."""
        raise NotImplementedError(f"{type(self).__name__} must define averaged")

    @property
    def about(self) -> dict[str, str]:
        """What is stored beside the weights, besides the names of the classes."""
        return {}

    def step(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> Mapping[str, Tensor]:
        """One step on images in [-1, 1]; gives its losses.

        Args:
            draw: for the step's random numbers.
        """
        raise NotDefinedError(self, "step")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        draw = generator(self.seed, "noise", self.current_epoch, batch_idx)
        losses = {name: value.detach() for name, value in self.step(batch.images, batch.labels, draw).items()}
        total = torch.stack(list(losses.values())).sum()
        self._finite.check({**losses, "total": total}, self.global_step, self.current_epoch)
        self.means.add(losses, self.device)
        return losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.means.make_room(checkpoint, self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._finite.settle()

    def on_train_epoch_end(self) -> None:
        self._finite.settle()

    def epoch_summary(self) -> dict[str, float]:
        """Mean losses since the last call; resets them."""
        return self.means.summary()


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Of every weight and buffer: average <- decay average + (1 - decay) network; 0 copies. Counters are copied."""
    theirs = network.state_dict()
    for name, mine in average.state_dict().items():
        if mine.dtype.is_floating_point and decay > 0:
            mine.lerp_(theirs[name], 1 - decay)
        else:
            mine.copy_(theirs[name])
