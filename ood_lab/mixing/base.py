"""What mixing ID images with pictures of another set is to the rest of the program."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.errors import NotDefinedError
from ood_lab.random import Draws


class Mixing:
    """Changes augmented ID images, float [B, 3, S, S] in [0, 1], with pictures of the set `pictures`; labels stay.

    As for an augmentation, `draw` makes the choices for a whole batch, and `apply` carries out those of any part of it.
    """

    def draw(self, rows: int, pictures: int, generator: torch.Generator) -> Draws:
        """The random choices for so many images, with so many pictures to choose from."""
        raise NotDefinedError(self, "draw")

    def apply(self, images: Tensor, pictures: Tensor, draws: Draws) -> Tensor:
        """The images that `draws` makes.

        Args:
            pictures: uint8 [N, 3, P, P], P at least S.
        """
        raise NotDefinedError(self, "apply")
