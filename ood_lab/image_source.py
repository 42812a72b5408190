"""What a source of outlier images that learns beside the classifier is to the rest of the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ood_lab.errors import NotDefinedError
from ood_lab.network import Network
from ood_lab.parts import Synthesizer


class ImageSource(nn.Module, Synthesizer):
    """A source of outlier images with networks of its own, which learn before the classifier does in a step.

    Their parameters are not the classifier's: no gradient of its losses reaches them. They have `optimizers` of their
    own, by name; on several devices each takes the same steps. A subclass defines `learn` and `make`.
    """

    space: ClassVar[str] = "images"

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.mean.device

    def begin(self, mean: Tensor, std: Tensor) -> None:
        """Before the first step: by what mean and deviation [3] the classifier's images are normalised."""
        self.mean.copy_(mean.view(3, 1, 1))
        self.std.copy_(std.view(3, 1, 1))

    def restore(self, states: Mapping[str, Any]) -> None:
        """Take over what `optimizer_states` gave, once the weights are on their device: the states follow them."""
        for name, state in states.items():
            self.optimizers[name].load_state_dict(state)

    def optimizer_states(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the weights, by name."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def normalised(self, images: Tensor) -> Tensor:
        """Images of values in [0, 1] as the classifier takes them."""
        return (images - self.mean) / self.std

    def learn(self, images_B: Tensor, network: Network, rate: float, draw: torch.Generator) -> Mapping[str, Tensor]:
        """One step of the networks; gives what is logged.

        Args:
            images_B: the step's ID images of all devices, normalised [B, 3, H, W].
            network: the classifier, which must stay as it is.
            rate: the classifier's learning rate as a share of its peak.
            draw: the same on all devices.
        """
        raise NotDefinedError(self, "learn")

    def make(self, count: int, shape: Sequence[int], draw: torch.Generator) -> Tensor:
        """Normalised outlier images [K, 3, H, W] of a shape (H, W), without a graph."""
        raise NotDefinedError(self, "make")
