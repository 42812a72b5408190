"""Moments of a run: whole numbers are epochs, fractions shares of all its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass


def first_step(moment: float, steps: int, per_epoch: int) -> int:
    """The first step at or after a moment."""
    return moment * per_epoch if isinstance(moment, int) else math.ceil(moment * steps - 1e-6)


@dataclass(frozen=True)
class Progress:
    """How far a run is: before `step` of `steps`, in epochs of `per_epoch` steps."""

    step: int
    steps: int
    per_epoch: int

    def reached(self, moment: float) -> bool:
        """Whether a moment has come."""
        return self.step >= first_step(moment, self.steps, self.per_epoch)
