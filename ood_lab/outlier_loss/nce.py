"""Contrastive loss between energies of ID rows and outliers (ARES, Table 3), which the paper does not define."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveFloat
from ood_lab.loss.supcon import supcon
from ood_lab.parts import Dimensions, Term, View


class NCE(Term):
    """Supervised NT-Xent with two classes, ID and outlier, on phi(E) / |phi(E)|, phi a linear layer with two outputs.

    Our reading of one sentence: a logistic layer, similarities, and one matrix product of the concatenated energies. Of
    numbers alone a cosine is 1 or -1; the layer gives them a direction.

    Args:
        temperature: tau; SimCLR's 0.5, since none is stated.
    """

    reads_whole: ClassVar[tuple[str, ...]] = ("energy",)
    reads_outliers: ClassVar[tuple[str, ...]] = ("energy",)

    def __init__(self, dims: Dimensions, *, temperature: PositiveFloat, **schedule: Any) -> None:
        super().__init__(dims, **schedule)
        self.temperature = temperature
        self.phi = nn.Linear(1, 2)

    def loss(self, view: View) -> Tensor:
        of_id, of_outliers = view.whole_batch.rows.energy, view.outlier_rows.energy
        rows = F.normalize(self.phi(torch.cat([of_id, of_outliers])), dim=1)
        places = torch.arange(len(rows), device=rows.device)
        return supcon(rows, rows, places, (places >= len(of_id)).long(), self.temperature)
