"""Optimizers with a schedule of the learning rate, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ood_lab.config.ranges import Fraction, Moment, NonNegativeFloat, OpenFraction, PositiveFloat, PositiveFraction
from ood_lab.errors import NotDefinedError
from ood_lab.moment import first_step


class ParameterGroup(NamedTuple):
    """Parameters, and the factors of their learning rate and weight decay."""

    parameters: list[nn.Parameter]
    rate: float = 1.0
    decay: float = 1.0


class Optimizer:
    """The settings that all optimizers share.

    Args:
        lr: peak learning rate.
        weight_decay: on every parameter, as the public codes do.
        warmup: share of all steps in which the rate rises linearly.
        schedule: after that a half cosine to zero, "milestones" (steps down by `gamma`), or "constant".
        milestones: whole numbers are epochs, fractions shares of the run.

    By `layer_decay` the learning rate falls from layer to layer, from the head towards the image; without
    `decay_vectors` norms, biases, and what the network names have no weight decay.
    """

    layer_decay: float = 1.0
    decay_vectors: bool = True

    def __init__(
        self,
        *,
        lr: PositiveFloat,
        weight_decay: NonNegativeFloat,
        warmup: Fraction,
        schedule: Literal["cosine", "milestones", "constant"] = "cosine",
        milestones: Sequence[Moment] = (0.5, 0.75),
        gamma: Fraction = 0.1,
    ) -> None:
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.schedule, self.milestones, self.gamma = schedule, milestones, gamma

    def factor(self, step: int, total: int, per_epoch: int = 1) -> float:
        """The learning rate at `step` of `total`, as a share of the peak."""
        rise = math.ceil(self.warmup * total - 1e-6)  # 0.07 * 100 is a little more than 7
        if step < rise:
            return (step + 1) / rise
        if self.schedule == "cosine":
            done = (step - rise) / max(1, total - rise)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if self.schedule == "constant":
            return 1.0
        return self.gamma ** sum(step >= first_step(moment, total, per_epoch) for moment in self.milestones)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of these parameter groups."""
        raise NotDefinedError(self, "build")

    def configure(self, groups: Iterable[ParameterGroup], per_epoch: int, epochs: int) -> dict[str, Any]:
        """The optimizer and scheduler in the form that Lightning's `configure_optimizers` returns."""
        optimizer = self.build(
            [
                {"params": parameters, "lr": self.lr * rate, "weight_decay": self.weight_decay * decay}
                for parameters, rate, decay in groups
                if parameters
            ]
        )
        total = per_epoch * epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, total, per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SGD(Optimizer):
    """SGD, the optimizer of all five papers on CIFAR.

    Args:
        momentum: Nesterov's.
        settings: see `Optimizer`.
    """

    def __init__(self, *, momentum: Fraction, **settings: Any) -> None:
        super().__init__(**settings)
        self.momentum = momentum

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.momentum > 0
        )


class Adam(Optimizer):
    """Adam with weight decay added to the gradient.

    Args:
        betas: of the two moving averages.
        settings: see `Optimizer`.
    """

    def __init__(self, *, betas: Sequence[OpenFraction] = (0.9, 0.999), **settings: Any) -> None:
        super().__init__(**settings)
        self.betas = betas

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        beta1, beta2 = self.betas
        return torch.optim.Adam(groups, lr=self.lr, betas=(beta1, beta2), weight_decay=self.weight_decay)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019).

    Args:
        layer_decay: factor of the learning rate from one layer to the next, from the head towards the image (BEiT; Bao
            et al. 2022); 1 for the same rate everywhere.
        decay_vectors: whether norms and biases decay, too.
        settings: see `Adam`.
    """

    def __init__(self, *, layer_decay: PositiveFraction = 1.0, decay_vectors: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer_decay, self.decay_vectors = layer_decay, decay_vectors

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        beta1, beta2 = self.betas
        return torch.optim.AdamW(groups, lr=self.lr, betas=(beta1, beta2), weight_decay=self.weight_decay)
