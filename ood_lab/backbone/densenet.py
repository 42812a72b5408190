"""Densely connected networks with bottlenecks and compression (Huang et al. 2017, DenseNet-BC)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.backbone.base import Backbone, Norm, he_normal, normalisation
from ood_lab.config.ranges import Fraction, PositiveInt

BOTTLENECK = 4  # channels between the two convolutions of a layer, in units of the growth rate


class Layer(nn.Module):
    """norm-ReLU-1x1 conv, norm-ReLU-3x3 conv; its output is put behind its input."""

    def __init__(self, norm: Norm, inputs: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = normalisation(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = normalisation(norm, BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, 1, 1, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, F.dropout(out, self.dropout, self.training)], 1)


class Transition(nn.Module):
    """norm-ReLU-1x1 conv, average pooling by 2."""

    def __init__(self, norm: Norm, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = normalisation(norm, inputs)
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(Backbone):
    """Dense blocks with transitions between them.

    Args:
        num_classes: rows of the head.
        blocks: layers in each dense block.
        growth: channels that a layer adds.
        initial: channels after the stem.
        compression: share of the channels that a transition keeps.
        stem: "cifar" (3x3, stride 1, no norm) or "imagenet" (7x7, stride 2, norm, ReLU, max-pooling).
        dropout: after each layer.
        norm: "batch" or "group", see `normalisation`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: list[PositiveInt],
        growth: PositiveInt,
        initial: PositiveInt,
        compression: Fraction,
        stem: Literal["cifar", "imagenet"],
        dropout: Fraction,
        norm: Literal["batch", "group"],
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, initial, 3, 1, 1, bias=False))
        if stem == "imagenet":
            large = nn.Conv2d(3, initial, 7, 2, 3, bias=False)
            self.stem = nn.Sequential(large, normalisation(norm, initial), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        parts: list[nn.Module] = []
        channels = initial
        for number, layers in enumerate(blocks):
            for _ in range(layers):
                parts.append(Layer(norm, channels, growth, dropout))
                channels += growth
            if number + 1 < len(blocks):
                kept = max(1, int(channels * compression))
                parts.append(Transition(norm, channels, kept))
                channels = kept
        self.body = nn.Sequential(*parts)
        self.norm = normalisation(norm, channels)
        self.feature_dim = channels
        self.fc = nn.Linear(channels, num_classes)
        he_normal(self)
        nn.init.zeros_(self.fc.bias)
        self.arrange(channels_last=min(growth, initial) >= 8)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.body(self.stem(images)))).mean((2, 3))
