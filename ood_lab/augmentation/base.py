"""What an augmentation is to the rest of the program."""

from __future__ import annotations

import torch
from torch import Tensor

# One tensor [B, ...] for each random choice: row b's part of all of them is what happens to image b. So the rows of a
# batch can be drawn together and applied apart, on several devices, with the same outcome.
Draws = dict[str, Tensor]


class Augmentation:
    """Random changes of training images, drawn for a whole batch, applied to any part of it.

    `draw(B, generator)` makes the choices where the generator lives; `apply(pixels uint8 [B, 3, H, W], draws)` gives
    float images in [0, 1]. An augmentation that `crops` draws a box of the whole picture under the names of
    `ood_lab.augmentation.simclr.box_draws`: images that are decoded for each step are cropped while they are decoded,
    from all their pixels, and `apply` is told so.
    """

    crops = False

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        """The random choices for `rows` images."""
        raise NotImplementedError(f"{type(self).__name__} must define draw()")

    def apply(self, pixels: Tensor, draws: Draws, cropped: bool = False) -> Tensor:
        """The images that `draws` makes of `pixels`."""
        raise NotImplementedError(f"{type(self).__name__} must define apply()")

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return self.apply(pixels, self.draw(len(pixels), generator))


def uniform(rows: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """`rows` draws from U(low, high), made where the generator lives."""
    return torch.rand(rows, generator=generator, device=generator.device) * (high - low) + low


def share(draws: Draws, rank: int, world: int) -> Draws:
    """What rank `rank` of `world` applies: every `world`-th row."""
    return {name: values[rank::world] for name, values in draws.items()}
