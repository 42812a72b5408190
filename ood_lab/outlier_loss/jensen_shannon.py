"""Energies of ID rows and outliers are pushed apart (ARES, Eqs. 7 to 13)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from ood_lab.config.ranges import PositiveFloat
from ood_lab.loss.jensen_shannon import Middle, jensen_shannon
from ood_lab.parts import Dimensions, Term, View


class JensenShannon(Term):
    """1 / (JSD + epsilon) of the energies of ID rows and outliers, each taken as normal (ARES, Eq. 13; weight beta).

    Over the ID rows of all devices. Points of a synthesizer carry no graph: their energies train the class head and the
    energy's weights.

    Args:
        objective: "reciprocal", or "negative", -JSD, which asks for the same and has a bounded gradient.
        epsilon: keeps the reciprocal finite where both have the same energies, as they have when the term starts. The
            term pulls on JSD with weight / (JSD + epsilon)^2: of small values a classifier is torn apart.
        middle, printed: see `jensen_shannon`.
        outliers: "head": their energies train the head; "constant": ID rows move alone.
    """

    reads_whole: ClassVar[tuple[str, ...]] = ("energy",)
    reads_outliers: ClassVar[tuple[str, ...]] = ("energy",)

    def __init__(
        self,
        dims: Dimensions,
        *,
        objective: Literal["reciprocal", "negative"],
        epsilon: PositiveFloat,
        middle: Middle,
        printed: bool,
        outliers: Literal["head", "constant"],
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.objective, self.epsilon, self.middle, self.printed = objective, epsilon, middle, printed
        self.constant = outliers == "constant"

    def loss(self, view: View) -> Tensor:
        of_outliers = view.outlier_rows.energy.squeeze(1)
        of_id = view.whole_batch.rows.energy.squeeze(1)
        apart = jensen_shannon(of_id, of_outliers.detach() if self.constant else of_outliers, self.middle, self.printed)
        return -apart if self.objective == "negative" else 1 / (apart + self.epsilon)
