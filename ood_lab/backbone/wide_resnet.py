"""Wide residual networks for 32x32 images (Zagoruyko & Komodakis 2016), as in the Outlier Exposure line of work."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.backbone.base import Backbone, Norm, he_normal, normalisation
from ood_lab.config.ranges import Fraction, PositiveInt, WideResNetDepth


class Block(nn.Module):
    """norm-ReLU-conv, norm-ReLU, dropout, conv beside a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input, which the branch
    shares; elsewhere it is the input itself.
    """

    def __init__(self, norm: Norm, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = normalisation(norm, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = normalisation(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        out = F.relu(self.norm2(self.conv1(active)))
        out = self.conv2(F.dropout(out, self.dropout, self.training))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(Backbone):
    """WRN-depth-widen: three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `widen` channels.

    Args:
        num_classes: rows of the head.
        depth: 6 n + 4; 40 in the papers.
        widen: factor of the channels; 2 in the Outlier Exposure and energy papers, 4 in DOS.
        dropout: within blocks; 0.3 in the Outlier Exposure code, 0 in GReg's.
        norm: "batch" or "group", see `normalisation`.

    Raises:
        ValueError: a depth of another form.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        depth: WideResNetDepth,
        widen: PositiveInt,
        dropout: Fraction,
        norm: Literal["batch", "group"],
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            near = max(10, 6 * round((depth - 4) / 6) + 4)
            raise ValueError(f"backbone.depth={depth}: expected 6 n + 4 with n of at least 1, for example {near}")
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        blocks, channels = [], 16
        for group in range(3):
            for position in range((depth - 4) // 6):
                stride = 2 if group > 0 and position == 0 else 1
                blocks.append(Block(norm, channels, 16 * widen * 2**group, stride, dropout))
                channels = 16 * widen * 2**group
        self.blocks = nn.Sequential(*blocks)
        self.norm = normalisation(norm, channels)
        self.feature_dim = channels
        self.fc = nn.Linear(channels, num_classes)
        he_normal(self)
        nn.init.zeros_(self.fc.bias)
        self.arrange(channels_last=True)  # 16 channels and more

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.blocks(self.stem(images)))).mean((2, 3))
