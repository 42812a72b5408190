"""What a change of outlier images is to the rest of the program."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.network import Network


class Perturbation:
    """Changes outlier images within a step."""

    def __call__(self, images: Tensor, network: Network, generator: torch.Generator) -> Tensor:
        """The changed images, normalised as they come; without a graph."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")
