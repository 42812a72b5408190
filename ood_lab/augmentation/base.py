"""What an augmentation is to the rest of the program."""

from __future__ import annotations

import torch
from torch import Tensor


class Augmentation:
    """`__call__(pixels uint8 [B, 3, H, W], generator)` gives float images in [0, 1], each row drawn independently."""

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")


def uniform(
    rows: int, low: float, high: float, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """`rows` draws from U(low, high), made where the generator lives and moved to `device`."""
    draws = torch.rand(rows, generator=generator, device=generator.device) * (high - low) + low
    return draws.to(device) if device is not None else draws
