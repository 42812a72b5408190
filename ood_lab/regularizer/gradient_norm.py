"""How steep the OOD score is around images, watched over the training (GReg, Figure 3)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ood_lab.loss.energy import energy
from ood_lab.loss.gradient_penalty import norms
from ood_lab.parts import Dimensions, Term, View


class GradientNorm(Term):
    """Mean |grad S| of ID and of outlier images, S the energy, with respect to the normalised images: logged only.

    What `regularizer=gradient` penalises in its reading "batch", of all images and not of the well-detected ones alone,
    so that runs with and without the penalty can be compared. It moves no weight; a step takes another backward pass.
    """

    watched: ClassVar = True
    reads: ClassVar = ("images", "logits")
    reads_outliers: ClassVar = ("images", "logits")

    def __init__(self, dims: Dimensions, **schedule: Any) -> None:
        super().__init__(dims, **schedule)

    def losses(self, view: View) -> dict[str, Tensor]:
        sides = (view.id, view.outlier_rows)
        means = torch.stack([energy(rows.class_logits).mean() for rows in sides]).sum()
        of_id, of_outliers = torch.autograd.grad(means, [rows.images for rows in sides], retain_graph=True)
        return {"gradient_norm_id": norms(of_id).sum(), "gradient_norm_outliers": norms(of_outliers).sum()}
