"""NT-Xent of SimCLR (Chen et al. 2020): the two views of an image attract each other; labels are not read."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ood_lab.config.ranges import PositiveFloat
from ood_lab.loss.supcon import supcon
from ood_lab.parts import Dimensions, Term, View


class SimCLR(Term):
    """Each row against all other rows of the batch; the other view of its image is the positive.

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
        return supcon(view.id.z, whole.rows.z, whole.own, whole.images, self.temperature)
