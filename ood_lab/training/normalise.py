"""Images as networks take them: standardised by channel constants."""

from __future__ import annotations

import torch
from torch import Tensor


class Normalise:
    """uint8 or float [0, 1] images [B, 3, H, W] to standardised float images."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return (images - self.mean.to(images.device)) / self.std.to(images.device)
