"""BigGAN's generator and discriminator for 32x32 images (Brock et al. 2019; the CIFAR settings of its PyTorch code).

Shape letters: B images, Z numbers of the noise, W channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

BOTTOM = 4  # pixels of the first feature map
BLOCKS = 3  # that double it: 32 pixels
SIGMA_EPSILON = 1e-8


def _normed(layer: nn.Module) -> nn.Module:
    """A layer whose weight is divided by its largest singular value, estimated by one power iteration a pass."""
    normed: nn.Module = spectral_norm(layer, n_power_iterations=1, eps=SIGMA_EPSILON)
    return normed


def _conv(ins: int, outs: int, size: int) -> nn.Module:
    return _normed(nn.Conv2d(ins, outs, size, padding=size // 2))


class ClassNorm(nn.Module):
    """Batch normalisation whose gain and bias are learned for each class: (1 + g_y) x + b_y."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.gain, self.bias = nn.Embedding(classes, width), nn.Embedding(classes, width)

    def forward(self, x_BWHH: Tensor, labels_B: Tensor) -> Tensor:
        gain, bias = (table(labels_B)[:, :, None, None] for table in (self.gain, self.bias))
        found: Tensor = torch.addcmul(bias, 1 + gain, self.norm(x_BWHH))
        return found


class GeneratorBlock(nn.Module):
    """Twice the pixels: norm, ReLU, doubling, convolution, and once more without doubling; a 1x1 shortcut beside it."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ClassNorm(width, classes), ClassNorm(width, classes)
        self.conv1, self.conv2 = _conv(width, width, 3), _conv(width, width, 3)
        self.shortcut = _conv(width, width, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        out = _doubled(self.norm1(x, labels).relu())
        out = self.conv2(self.norm2(self.conv1(out), labels).relu())
        # The shortcut's convolution of single pixels comes before doubling: the same numbers at a quarter of the work.
        found: Tensor = out + _doubled(self.shortcut(x))
        return found


class Generator(nn.Module):
    """Noise [B, Z] and classes [B] to images in (-1, 1) [B, 3, 32, 32].

    Args:
        classes: how many.
        width: channels of every feature map; 256 in the CIFAR settings.
        noise: Z.
    """

    def __init__(self, classes: int, width: int, noise: int) -> None:
        super().__init__()
        self.classes, self.width, self.noise = classes, width, noise
        self.linear = _normed(nn.Linear(noise, width * BOTTOM**2))
        self.blocks = nn.ModuleList(GeneratorBlock(width, classes) for _ in range(BLOCKS))
        self.norm = nn.BatchNorm2d(width)
        self.conv = _conv(width, 3, 3)
        _initialise(self)

    def forward(self, noise_BZ: Tensor, labels_B: Tensor) -> Tensor:
        x = self.linear(noise_BZ).view(-1, self.width, BOTTOM, BOTTOM)
        for block in self.blocks:
            x = block(x, labels_B)
        found: Tensor = self.conv(self.norm(x).relu()).tanh()
        return found


class DiscriminatorBlock(nn.Module):
    """Two convolutions, and half the pixels where `halves`; a 1x1 shortcut beside them where the shape changes."""

    def __init__(self, ins: int, width: int, halves: bool, first: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(ins, width, 3), _conv(width, width, 3)
        self.shortcut = _conv(ins, width, 1) if halves else None
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        if self.shortcut is not None:
            # Pooling and a convolution of single pixels can be exchanged; pooled pixels are a quarter of the work.
            out, x = F.avg_pool2d(out, 2), self.shortcut(F.avg_pool2d(x, 2))
        found: Tensor = out + x
        return found


class Discriminator(nn.Module):
    """Images [B, 3, 32, 32] and classes [B] to scores [B]: a linear one of the features, and their product with y's."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            DiscriminatorBlock(3, width, halves=True, first=True),
            DiscriminatorBlock(width, width, halves=True),
            DiscriminatorBlock(width, width, halves=False),
            DiscriminatorBlock(width, width, halves=False),
        )
        self.linear = _normed(nn.Linear(width, 1))
        self.embedding = _normed(nn.Embedding(classes, width))
        _initialise(self)

    def forward(self, images: Tensor, labels_B: Tensor) -> Tensor:
        features_BW = self.blocks(images).relu().sum((2, 3))
        found: Tensor = self.linear(features_BW).squeeze(1) + (self.embedding(labels_B) * features_BW).sum(1)
        return found


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


def _initialise(network: nn.Module) -> None:
    """N(0, 0.02) for convolutions, linear layers and embeddings, as in the CIFAR settings; biases as torch has them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            parametrised = getattr(module, "parametrizations", None)
            weight = module.weight if parametrised is None else parametrised.weight.original
            nn.init.normal_(weight, 0, 0.02)
