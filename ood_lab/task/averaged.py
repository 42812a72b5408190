"""An exponential moving average of the weights, which is what a run ends with."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from ood_lab.method.base import Method
from ood_lab.task.callbacks import stepped

AVERAGED = ("backbone.", "head.")  # what detectors see; what terms keep for themselves stays as it is
RISE = 10  # the decay of step n is (1 + n) / (RISE + n) at most, so that the first weights are soon forgotten


class AveragedWeights(L.Callback):
    """w <- d w + (1 - d) w_n after step n, for the parameters and batch statistics of the network.

    They are part of the checkpoint. Training itself is the same to the bit.

    Args:
        decay: d.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.average: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ours = _of_network(pl_module)
        if not self.average:
            self.average = {name: value.clone() for name, value in ours.items()}
        self.average = {name: value.to(ours[name].device) for name, value in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not stepped(trainer, batch_idx):
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (RISE + self.steps))
        for name, value in _of_network(pl_module).items():
            self.average[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.average = state_dict["steps"], dict(state_dict["average"])

    def applied(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The final weights with the averages in their places."""
        return {name: self.average.get(name, value).contiguous() for name, value in weights.items()}


def _of_network(module: L.LightningModule) -> dict[str, Tensor]:
    assert isinstance(module, Method)
    state = module.state_dict()
    return {name: v.detach() for name, v in state.items() if name.startswith(AVERAGED) and v.is_floating_point()}
