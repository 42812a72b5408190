"""Classes and shifts told apart together by CSI's joint head (Tack et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ood_lab.parts import Term, View


class CSIJoint(Term):
    """Cross-entropy of C x 4 classes on turned images; it needs head=shifts."""

    reads_shifted: ClassVar = ("joint",)

    def loss(self, view: View) -> Tensor:
        turned = view.shifted_batch
        return F.cross_entropy(turned.rows.joint[turned.own], turned.labels[turned.own])
