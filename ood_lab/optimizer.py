"""SGD with Nesterov momentum and a per-step cosine to zero, the optimiser of all five papers on CIFAR."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ood_lab.config.ranges import Fraction, NonNegativeFloat, PositiveFloat


class SGD:
    """Settings of the optimiser and its schedule.

    Args:
        lr: peak learning rate.
        momentum: Nesterov momentum.
        weight_decay: on every parameter, as the public codes do.
        warmup: share of all steps in which the rate rises linearly.
    """

    def __init__(
        self, *, lr: PositiveFloat, momentum: Fraction, weight_decay: NonNegativeFloat, warmup: Fraction
    ) -> None:
        self.lr, self.momentum, self.weight_decay, self.warmup = lr, momentum, weight_decay, warmup

    def factor(self, step: int, total: int) -> float:
        """The learning rate at `step` of `total`, as a share of the peak."""
        rise = math.ceil(self.warmup * total - 1e-6)  # 0.07 * 100 is a little more than 7
        if step < rise:
            return (step + 1) / rise
        done = (step - rise) / max(1, total - rise)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def configure(self, parameters: Iterable[nn.Parameter], total: int) -> dict[str, Any]:
        """The optimizer and scheduler in the form that Lightning's `configure_optimizers` returns."""
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.momentum > 0,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
