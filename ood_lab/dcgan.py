"""A generator and a discriminator of transposed and strided convolutions (DCGAN, Radford et al. 2016).

Shape letters: B images, Z numbers of the noise, S side, W channels of the 4x4 feature maps.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

BOTTOM = 4  # pixels of the smallest feature map


def doublings(side: int) -> int:
    """How often the smallest feature map is doubled up to an image of this side.

    Raises:
        ValueError: not 8, 16, 32, ...
    """
    count = (side // BOTTOM).bit_length() - 1
    if count < 1 or BOTTOM << count != side:
        raise ValueError(f"side={side}: expected 8, 16, 32, 64 or another power of two above 4")
    return count


class Generator(nn.Module):
    """Noise [B, Z] to images in (0, 1) [B, 3, S, S].

    Args:
        noise: Z.
        width: W; each doubling of the side halves the channels.
        side: S.
    """

    def __init__(self, noise: int, width: int, side: int) -> None:
        super().__init__()
        channels = _channels(width, side)
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise, width, BOTTOM, bias=False)]
        for ins, outs in zip(channels, [*channels[1:], 3], strict=True):
            layers += [nn.BatchNorm2d(ins), nn.ReLU(), nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Sigmoid())
        _initialise(self)

    def forward(self, noise_BZ: Tensor) -> Tensor:
        found: Tensor = self.layers(noise_BZ[:, :, None, None])
        return found


class Discriminator(nn.Module):
    """Images [B, 3, S, S] to logits [B] of being real.

    Args:
        width: W; each halving of the side doubles the channels up to it.
        side: S.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        channels = _channels(width, side)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for ins, outs in pairwise(channels):
            layers += [nn.Conv2d(ins, outs, 4, 2, 1, bias=False), nn.BatchNorm2d(outs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, BOTTOM, bias=False))
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.layers(images).flatten()
        return found


def _channels(width: int, side: int) -> list[int]:
    """Of the feature maps of 4, 8, ... pixels, up to half the side."""
    return [max(1, width >> turn) for turn in range(doublings(side))]


def _initialise(network: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for the scales of batch normalisation."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
