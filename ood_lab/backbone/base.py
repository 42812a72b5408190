"""What a backbone is to the rest of the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ood_lab.errors import NotDefinedError, RequestError
from ood_lab.types import BackboneOutput, LinearHead


class Backbone(nn.Module):
    """A network with a linear head: `forward(images [B, 3, H, W])` gives features [B, D] and logits [B, C]."""

    feature_dim: int
    fc: nn.Linear
    layout: torch.memory_format = torch.contiguous_format
    layered: ClassVar[bool] = False  # whether `layer_depths` tells layers apart

    def arrange(self, channels_last: bool) -> None:
        """Choose the memory layout of weights and activations.

        Channels-last is 1.1 to 1.4 times faster on the CPU, and what tensor cores want. With fewer than 8 channels its
        CPU backward corrupts memory (torch 2.15, AVX2): networks with such layers stay contiguous.
        """
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.layout)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features [B, D]."""
        raise NotDefinedError(self, "features")

    def forward(self, images: Tensor) -> BackboneOutput:
        features = self.features(images.contiguous(memory_format=self.layout))
        return BackboneOutput(features, self.fc(features))

    def freeze_below_last_stage(self) -> None:
        """Train the last stage and the head only.

        Raises:
            RequestError: the network has no stages.
        """
        raise RequestError(
            f"method.trainable=layer4_mlp: {type(self).__name__} has no such stage; use a ResNet, or whole"
        )

    @staticmethod
    def channel_constants(options: Mapping[str, Any]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, on 0..1, of a network that has an option `own_normalisation`."""
        raise NotImplementedError("a network with the option own_normalisation must define channel_constants()")

    def load_published(self) -> None:
        """Take over published weights, where an option of the network asks for some."""

    def layer_depths(self) -> dict[nn.Parameter, int]:
        """How many layers lie between each parameter and the logits, 1 for the last layer of features.

        Raises:
            RequestError: the network has no layers that are told apart.
        """
        raise RequestError(
            f"method.optimizer.layer_decay: the layers of {type(self).__name__} are not told apart; use 1, a ResNet or "
            "backbone=timm"
        )

    def undecayed(self) -> set[nn.Parameter]:
        """Parameters that should have no weight decay besides norms and biases (embeddings of positions)."""
        return set()

    def public_names(self) -> dict[str, str]:
        """The names that modules have in public implementations, to ours; none where these differ among each other."""
        return {}

    @property
    def head(self) -> LinearHead:
        """The classifier's weights, detached."""
        return LinearHead(self.fc.weight.detach(), self.fc.bias.detach())


Norm = Literal["batch", "group"]


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """Batch normalisation, or group normalisation with as many groups (32 at most) as divide the channels.

    Group normalisation treats each image by itself: the devices of a distributed run then compute what one device
    with the whole batch would.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0), channels)


def he_normal(network: nn.Module) -> None:
    """Draw every convolution from He's normal distribution (fan out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
