"""Some of the candidates, at random."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.network import Network
from ood_lab.selector.base import Selector


class Random(Selector):
    """`take` of the candidates of each device, without replacement; all of them where there are fewer."""

    def __init__(self, *, take: PositiveInt) -> None:
        self.take = take

    def __call__(self, images: Tensor, network: Network, generator: torch.Generator) -> Tensor:
        return images[torch.randperm(len(images), generator=generator, device=images.device)[: self.take]]
