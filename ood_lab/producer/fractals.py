"""Pictures of random iterated function systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from ood_lab.config.ranges import PositiveInt
from ood_lab.images.fractal import BLOCK, block
from ood_lab.producer.base import Producer


class Fractals(Producer):
    """The pictures of `ood_lab.images.fractal`: those of `dataset=fractals` with the same seed and side.

    Args:
        side: of the pictures, in pixels.
    """

    def __init__(self, *, side: PositiveInt, **options: Any) -> None:
        super().__init__(**options)
        self.side = side

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        first = start // BLOCK
        drawn = torch.cat([block(number, self.side, self.seed) for number in range(first, -(-stop // BLOCK))])
        taken = drawn[start - first * BLOCK : stop - first * BLOCK]
        return {"images": taken.permute(0, 2, 3, 1).contiguous().numpy()}
