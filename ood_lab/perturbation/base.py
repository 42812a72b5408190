"""What a change of outlier images is to the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ood_lab.errors import NotDefinedError
from ood_lab.network import Network


@dataclass(frozen=True)
class OutlierImages:
    """Images that a step trains on as outliers [K, 3, H, W], and their soft labels where they were made with some.

    `id_images` replace the step's ID images, of two views the first.
    """

    images: Tensor
    targets: Tensor | None = None
    id_images: Tensor | None = None


@dataclass(frozen=True)
class Beside:
    """What a step has besides the outlier images of this device.

    Args:
        images, labels: of the ID rows of this device, of two views the first.
        classes, outputs: of the head.
        network: for further passes.
        rank, world: this device's place: it has rows rank, rank + world, ... of those of all devices.
    """

    images: Tensor
    labels: Tensor
    classes: int
    outputs: int
    network: Network
    rank: int = 0
    world: int = 1


class Perturbation:
    """Changes outlier images within a step.

    `gives` names in the class body what terms may read of the images besides: "targets", or nothing; `strength` the
    attribute that says how much is changed, where 0 changes nothing.
    """

    gives: ClassVar[tuple[str, ...]] = ()
    strength: ClassVar[str] = ""

    def __call__(self, images: Tensor, beside: Beside, generator: torch.Generator) -> OutlierImages:
        """The changed images, normalised as they come; without a graph.

        Args:
            generator: the same on all devices.
        """
        raise NotDefinedError(self, "__call__")
