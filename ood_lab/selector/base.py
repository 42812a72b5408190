"""What a rule of choosing outlier images is to the rest of the program."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.network import Network


class Selector:
    """Chooses among a step's candidate images of the auxiliary set."""

    def __call__(self, images: Tensor, network: Network, generator: torch.Generator) -> Tensor:
        """The images taken."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")
