"""What an augmentation is to the rest of the program."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.errors import NotDefinedError
from ood_lab.random import Draws


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
        raise NotDefinedError(self, "draw")

    def apply(self, pixels: Tensor, draws: Draws, cropped: bool = False) -> Tensor:
        """The images that `draws` makes of `pixels`."""
        raise NotDefinedError(self, "apply")

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return self.apply(pixels, self.draw(len(pixels), generator))
