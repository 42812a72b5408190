"""Supervised contrastive loss on two views (Khosla et al. 2020): rows of a class attract one another."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ood_lab.config.ranges import PositiveFloat
from ood_lab.loss.supcon import supcon
from ood_lab.parts import Dimensions, Term, View


class SupCon(Term):
    """Each row against all other rows of the batch; those of its class are positives.

    Args:
        temperature: tau.
    """

    reads: ClassVar = ("z",)
    reads_whole: ClassVar = ("z",)
    views: ClassVar = 2

    def __init__(self, dims: Dimensions, *, temperature: PositiveFloat, **schedule: Any) -> None:
        super().__init__(dims, **schedule)
        self.temperature = temperature

    def loss(self, view: View) -> Tensor:
        whole = view.whole_batch
        return supcon(view.id.z, whole.rows.z, whole.own, whole.labels, self.temperature)
