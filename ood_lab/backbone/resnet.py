"""Residual networks (He et al. 2016), with the stem for 32x32 images or ImageNet's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.backbone.base import Backbone, Norm, he_normal, normalisation
from ood_lab.config.ranges import PositiveInt, StageDepths

STAGES = 4


def _conv_norm(norm: Norm, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        normalisation(norm, outputs),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, norm: Norm, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.branch = self.layers(norm, inputs, width, stride)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv_norm(norm, inputs, outputs, 1, stride)

    def layers(self, norm: Norm, inputs: int, width: int, stride: int) -> nn.Sequential:
        """The branch beside the shortcut."""
        return nn.Sequential(
            _conv_norm(norm, inputs, width, 3, stride), nn.ReLU(inplace=True), _conv_norm(norm, width, width, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class Bottleneck(BasicBlock):
    """1x1, 3x3 (carrying the stride, as torchvision's), 1x1 convolutions beside a shortcut."""

    expansion = 4

    def layers(self, norm: Norm, inputs: int, width: int, stride: int) -> nn.Sequential:
        """The branch beside the shortcut."""
        return nn.Sequential(
            _conv_norm(norm, inputs, width, 1),
            nn.ReLU(inplace=True),
            _conv_norm(norm, width, width, 3, stride),
            nn.ReLU(inplace=True),
            _conv_norm(norm, width, width * self.expansion, 1),
        )


class ResNet(Backbone):
    """A four-stage residual network; each stage halves the side and doubles the width.

    Args:
        num_classes: rows of the head.
        block: "basic" (ResNet-18, -34) or "bottleneck" (ResNet-50).
        depths: blocks in each of the four stages.
        width: channels of the first stage; 64 in the papers.
        stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, max-pooling).
        norm: "batch" or "group", see `normalisation`.

    Raises:
        ValueError: not four depths.
    """

    layered = True

    def __init__(
        self,
        num_classes: int,
        *,
        block: Literal["basic", "bottleneck"],
        depths: StageDepths,
        width: PositiveInt,
        stem: Literal["cifar", "imagenet"],
        norm: Literal["batch", "group"],
    ) -> None:
        super().__init__()
        if len(depths) != STAGES:
            raise ValueError(f"backbone.depths={depths}: expected the number of blocks of each of {STAGES} stages")
        kind = {"basic": BasicBlock, "bottleneck": Bottleneck}[block]
        large = stem == "imagenet"
        self.stem = nn.Sequential(
            _conv_norm(norm, 3, width, 7 if large else 3, 2 if large else 1),
            nn.ReLU(inplace=True),
            *([nn.MaxPool2d(3, 2, 1)] if large else []),
        )
        stages, channels = [], width
        for stage, depth in enumerate(depths):
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                stages.append(kind(norm, channels, width * 2**stage, stride))
                channels = width * 2**stage * kind.expansion
        self.stages, self.depths = nn.Sequential(*stages), depths
        self.feature_dim = channels
        self.fc = nn.Linear(channels, num_classes)
        he_normal(self)
        self.arrange(channels_last=width % 8 == 0)

    def freeze_below_last_stage(self) -> None:
        for module in (self.stem, self.stages[: -self.depths[-1]]):
            module.requires_grad_(False)

    def layer_depths(self) -> dict[nn.Parameter, int]:
        layers = [*reversed(self.stages), self.stem]
        return {parameter: depth for depth, layer in enumerate(layers, 1) for parameter in layer.parameters()}

    def public_names(self) -> dict[str, str]:
        """torchvision's and timm's names, and OpenOOD's for what these call otherwise."""
        names = {"conv1": "stem.0.0", "bn1": "stem.0.1", "fc": "fc", "linear": "fc"}
        blocks = iter(enumerate(self.stages))
        for stage, depth in enumerate(self.depths, 1):
            for position in range(depth):
                number, block = next(blocks)
                public, own = f"layer{stage}.{position}", f"stages.{number}"
                assert isinstance(block, BasicBlock)
                layers = [i for i, layer in enumerate(block.branch) if isinstance(layer, nn.Sequential)]
                for rank, layer in enumerate(layers, 1):
                    names[f"{public}.conv{rank}"] = f"{own}.branch.{layer}.0"
                    names[f"{public}.bn{rank}"] = f"{own}.branch.{layer}.1"
                if isinstance(block.shortcut, nn.Sequential):
                    for part in ("downsample", "shortcut"):
                        names |= {f"{public}.{part}.{i}": f"{own}.shortcut.{i}" for i in (0, 1)}
        return names

    def features(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images)).mean((2, 3))
