"""Cross-entropy on the logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ood_lab.parts import Term, View


class CE(Term):
    """mean_b -log softmax(logits_b)[y_b]."""

    reads: ClassVar = ("logits",)

    def loss(self, view: View) -> Tensor:
        return F.cross_entropy(view.id.logits, view.labels)
