"""GReg's gradient regularisation: a flat score around images that are detected well (GReg, Eq. 3)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ood_lab.loss.energy import energy
from ood_lab.loss.gradient_penalty import gradient_penalty
from ood_lab.parts import Dimensions, Term, View


class Gradient(Term):
    """The norm of the energy's gradient with respect to the normalised images, in the step's one forward pass.

    Eq. 3 has the gradient of each image's own score. With batch normalisation in training mode a score depends on the
    other images of the batch, too, and one pass gives the sum of both; with group normalisation all readings but
    "released" agree.

    Args:
        m_in, m_out: ID images count below the first, outlier images above the second (the release has -25 and -7; the
            paper gives none). null: all count, for terms that set no level of the energy, such as Outlier Exposure.
        reading: "batch" takes the scores of the step's pass, as the released code does; "released" divides that by the
            number of all images once more, as its code does, too (128 times weaker at 64 and 64 images); "sample" makes
            a further pass with the batch's statistics as constants, so that Eq. 3 holds for each image.
    """

    reads: ClassVar = ("images", "logits")
    reads_outliers: ClassVar = ("images", "logits")
    at_most: ClassVar = (("m_in", "m_out"),)

    def __init__(
        self,
        dims: Dimensions,
        *,
        m_in: float | None = -25.0,
        m_out: float | None = -7.0,
        reading: Literal["batch", "released", "sample"] = "batch",
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.m_in = float("inf") if m_in is None else m_in
        self.m_out = float("-inf") if m_out is None else m_out
        self.reading = reading

    def loss(self, view: View) -> Tensor:
        rows, outliers = view.id, view.outlier_rows
        count = len(rows.images)
        id_logits, outlier_logits = rows.class_logits, outliers.class_logits
        if self.reading == "sample":
            images = torch.cat([rows.images, outliers.images])
            logits = view.further_passes(images, "held", grad=True).logits[:, : rows.classes]
            id_logits, outlier_logits = logits[:count], logits[count:]
        penalty = gradient_penalty(
            energy(id_logits), rows.images, energy(outlier_logits), outliers.images, self.m_in, self.m_out
        )
        everything = view.devices * (count + len(outliers.images))
        return penalty / everything if self.reading == "released" else penalty
