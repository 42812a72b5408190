"""Some of the candidates, at random."""

from __future__ import annotations

import torch
from torch import Tensor

from ood_lab.parts import Rows
from ood_lab.selector.base import StepSelector


class Random(StepSelector):
    """Without replacement: what other selectors are compared with."""

    def choose(self, rows: Rows, count: int, take: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(count, generator=generator, device=generator.device)[:take]
