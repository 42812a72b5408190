"""Means of scalars over an epoch, part of a checkpoint: a run resumed within an epoch reports the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

SUFFIX = "_mean"


class EpochMeans(nn.ModuleDict):
    """The running mean of each scalar over the steps in which it was there; as `means` of a module."""

    def add(self, scalars: Mapping[str, Tensor], device: torch.device) -> None:
        """Count a step's scalars; nothing waits for the device."""
        for name, value in scalars.items():
            self._of(name, device).update(value)

    def _of(self, name: str, device: torch.device) -> MeanMetric:
        key = f"{name}{SUFFIX}"
        if key not in self:
            mean = MeanMetric(nan_strategy="disable").to(device)  # looking for NaN waits for the device
            mean.persistent(True)
            self[key] = mean
        found = self[key]
        assert isinstance(found, MeanMetric)
        return found

    def make_room(self, checkpoint: Mapping[str, Any], device: torch.device) -> None:
        """Take in the means that a checkpoint has."""
        for key in checkpoint["state_dict"]:
            if key.startswith("means."):
                self._of(key.split(".")[1].removesuffix(SUFFIX), device)

    def summary(self) -> dict[str, float]:
        """`<name>_mean` of each scalar that was there since the last call; resets them."""
        found = {}
        for key, mean in self.items():
            assert isinstance(mean, MeanMetric)
            if mean.update_called:
                found[key] = float(mean.compute())
            mean.reset()
        return found
