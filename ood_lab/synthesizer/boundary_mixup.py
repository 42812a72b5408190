"""RONF's boundary feature mixup, as far as it is known (He et al. 2022): VOS's points of different classes, mixed.

Shape letters: C classes, K points a class, D features.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveFloat
from ood_lab.errors import RunError
from ood_lab.random import beta
from ood_lab.synthesizer.base import by_class
from ood_lab.synthesizer.gaussian_tail import GaussianTail
from ood_lab.types import Outliers


def mix_classes(points_CKD: Tensor, *, shift_CK: Tensor, partner_CK: Tensor, share_CK: Tensor) -> Tensor:
    """l x + (1 - l) x' of each point [C, K, D] with one of another class.

    Args:
        points_CKD: the points.
        shift_CK: 1 to C - 1; the partner's class is so many further on.
        partner_CK: which of its points.
        share_CK: l.
    """
    classes = torch.arange(len(points_CKD), device=points_CKD.device)[:, None]
    other = points_CKD[(classes + shift_CK) % len(points_CKD), partner_CK]
    return other + share_CK[:, :, None] * (points_CKD - other)


class BoundaryMixup(GaussianTail):
    """Mixtures of the points of lowest density of two different classes.

    Args:
        beta: a of the share l ~ Beta(a, a) of each pair; not known, 1 is uniform.
        tail: see `GaussianTail`.
    """

    least_classes: ClassVar = 2
    caveat: ClassVar = (
        "RONF has no public code: outliers are VOS's points mixed between classes, as ARES describes it; its parameter "
        "selection and energy discrepancy are left out"
    )

    def __init__(self, *, beta: PositiveFloat, **tail: Any) -> None:
        super().__init__(**tail)
        self.beta = beta

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        if len(bank_CND) < 2:
            raise RunError(
                "synthesizer=boundary_mixup mixes points of two classes, and the ID set has one; "
                "use synthesizer=gaussian_tail"
            )
        points = self.tail(bank_CND, generator)
        shape, draw = points.shape[:2], partial(torch.randint, generator=generator, device=generator.device)
        mixed = mix_classes(
            points,
            shift_CK=draw(1, len(points), shape),
            partner_CK=draw(shape[1], shape),
            share_CK=beta(self.beta, self.beta, shape, generator).to(points),
        )
        return by_class(mixed)
