"""The candidates that look most like ID images (NTOM, Chen et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ood_lab.config.ranges import Fraction, PositiveInt
from ood_lab.loss.energy import energy
from ood_lab.parts import Rows
from ood_lab.selector.base import StepSelector, lowest


class Greedy(StepSelector):
    """The lowest energies of a step's candidates.

    NTOM chooses before an epoch, and by the output of a class of its own; here the choice is made in every step, by the
    score that most terms train.

    Args:
        skip: share of the candidates with the lowest energies that is left out (NTOM's quantile).
    """

    reads: ClassVar = ("logits",)

    def __init__(self, *, candidates: PositiveInt | None = None, skip: Fraction = 0.0) -> None:
        super().__init__(candidates=candidates)
        self.skip = skip

    def choose(self, rows: Rows, count: int, take: int, generator: torch.Generator) -> Tensor:
        first = min(int(self.skip * count + 1e-6), max(0, count - take))
        return lowest(energy(rows.class_logits), first + take)[first:]
