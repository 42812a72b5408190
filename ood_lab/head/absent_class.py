"""A head with one more class, which stands for everything that is none of the others."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ood_lab.head.base import Head


class AbsentClass(Head):
    """K + 1 outputs. Detectors and accuracy see the K classes' logits; the last output is given as "absent" [B, 1].

    Cross-entropy counts all K + 1; energies and predictions of terms the K classes.
    """

    gives: ClassVar[tuple[str, ...]] = ("absent",)
    adds: ClassVar[tuple[str, ...]] = ("absent",)
    trained_through: ClassVar[tuple[tuple[str, str], ...]] = (("absent", "absent"), ("absent", "targets"))
    EXTRA: ClassVar[int] = 1

    def trained(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"logits": outputs, "absent": outputs[:, -1:]}

    def tested(self, features_BD: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"logits": self.class_logits(outputs), "absent": outputs[:, -1:]}
