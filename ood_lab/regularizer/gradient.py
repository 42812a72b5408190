"""GReg's gradient regularisation: a flat score around images that are detected well (GReg, Eq. 3)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from ood_lab.loss.gradient_penalty import gradient_penalty
from ood_lab.parts import Dimensions, Term, View


class Gradient(Term):
    """The norm of the energy's gradient with respect to the normalised images, in the step's one forward pass.

    Args:
        m_in, m_out: ID images count below the first, outlier images above the second (the release has -25 and -7).
        reading: "batch" is Eq. 3 of the scores of one pass; "released" divides it by the number of images once more,
            as the released code does.
    """

    reads: ClassVar = ("images", "logits")
    reads_outliers: ClassVar = ("images", "logits")

    def __init__(
        self,
        dims: Dimensions,
        *,
        m_in: float = -25.0,
        m_out: float = -7.0,
        reading: Literal["batch", "released"] = "batch",
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.m_in, self.m_out, self.reading = m_in, m_out, reading

    def loss(self, view: View) -> Tensor:
        rows, outliers = view.id, view.outlier_rows
        penalty = gradient_penalty(
            -rows.logits.logsumexp(1),
            rows.images,
            -outliers.logits.logsumexp(1),
            outliers.images,
            self.m_in,
            self.m_out,
        )
        return penalty / (len(rows.images) + len(outliers.images)) if self.reading == "released" else penalty
