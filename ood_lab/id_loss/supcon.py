"""Supervised contrastive loss on two views (Khosla et al. 2020): rows of a class attract one another."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.id_loss.base import Contrastive
from ood_lab.loss.supcon import supcon
from ood_lab.parts import View


class SupCon(Contrastive):
    """Each row against all other rows of the batch; those of its class are positives."""

    reads: ClassVar = ("z",)
    reads_whole: ClassVar = ("z",)

    def loss(self, view: View) -> Tensor:
        whole = view.whole_batch
        return supcon(view.id.z, whole.rows.z, whole.own, whole.labels, self.temperature)
