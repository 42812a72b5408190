"""What terms on outliers share: prototypes to compare with, and a head that tells ID rows from outliers."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.config.ranges import Fraction, NonNegativeInt, PositiveFloat
from ood_lab.errors import NotDefinedError
from ood_lab.loss.logistic import Reduction, binary_losses, over_both_sides
from ood_lab.memory import Prototypes
from ood_lab.parts import Dimensions, Memories, Rows, Term, View


class Discernment(Term):
    """A term that compares points on the sphere with prototypes, as the readings of HamOS's OOD-discernment loss do.

    Args:
        temperature: tau.
        prototype_momentum: of the prototypes' moving average; where an ID term keeps prototypes, the same ones.
    """

    reads: ClassVar[tuple[str, ...]] = ("prototypes",)
    reads_outliers: ClassVar[tuple[str, ...]] = ("z",)

    def __init__(
        self, dims: Dimensions, *, temperature: PositiveFloat, prototype_momentum: Fraction, **schedule: Any
    ) -> None:
        super().__init__(dims, **schedule)
        self.temperature, self.momentum = temperature, prototype_momentum

    def keeps(self) -> Memories:
        return {"prototypes": partial(Prototypes, momentum=self.momentum)}


def small_network(width: int, hidden: int, outputs: int) -> nn.Module:
    """One linear layer; with `hidden` units two, and ReLU between them."""
    if not hidden:
        return nn.Linear(width, outputs)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Rising(nn.Module):
    """A `small_network` [B, 1] -> [B, 2] whose second output less the first never falls (ours; codes leave it free).

    Weights enter by their absolute values, those of the first output with a minus. Sums of these grow with the hidden
    units, where those of weights of both signs do not: the last weights begin smaller by the root of their number.
    """

    signs: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden) if hidden else None
        self.outputs = nn.Linear(hidden or 1, 2)
        with torch.no_grad():
            self.outputs.weight.div_((hidden or 1) ** 0.5)
        self.register_buffer("signs", torch.tensor([[-1.0], [1.0]]), persistent=False)

    def forward(self, energy_B1: Tensor) -> Tensor:
        rows = energy_B1
        if self.hidden is not None:
            rows = F.linear(rows, self.hidden.weight.abs(), self.hidden.bias).relu()
        return F.linear(rows, self.outputs.weight.abs() * self.signs, self.outputs.bias)


def energy_losses(phi: nn.Module, energy_B1: Tensor, label: int) -> Tensor:
    """Cross-entropy of phi(-E) for each row [B]: label 1 is ID, 0 outlier."""
    outputs = phi(energy_B1)
    return F.cross_entropy(outputs, outputs.new_full((len(outputs),), label, dtype=torch.long), reduction="none")


class LogisticTerm(Term):
    """Binary cross-entropy of a head that calls ID rows 1 and outliers 0.

    Synthesized points train the head, which trains the ID rows; images of an auxiliary set train the network by
    themselves, too.

    Args:
        hidden: units between input and output; 0 is one linear layer.
        reduction: "joint" is the mean over all rows, "sum" that of the two sides' means, "mean" half of it.
    """

    def __init__(
        self,
        dims: Dimensions,
        *,
        hidden: NonNegativeInt = 0,
        reduction: Reduction = "mean",
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.reduction = reduction
        self.head = small_network(self.width(dims), hidden, 1)

    def width(self, dims: Dimensions) -> int:
        """Numbers of an input row."""
        raise NotDefinedError(self, "width")

    def inputs(self, rows: Rows) -> Tensor:
        """What the head is given."""
        raise NotDefinedError(self, "inputs")

    def loss(self, view: View) -> Tensor:
        id_logits, outlier_logits = (self.head(self.inputs(rows)).squeeze(1) for rows in (view.id, view.outlier_rows))
        return over_both_sides(*binary_losses(id_logits, outlier_logits), self.reduction, view.id_share)
