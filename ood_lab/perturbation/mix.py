"""Outlier images mixed with ID images, and the soft labels of the mixtures (OpenMix, MixOE)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveFloat
from ood_lab.errors import RunError
from ood_lab.perturbation.base import Beside, OutlierImages, Perturbation
from ood_lab.random import beta


class Mix(Perturbation):
    """lambda x_id + (1 - lambda) x_outlier, position by position, with one lambda for the whole batch.

    The label is lambda of the ID image's and 1 - lambda of the outlier's. No outlier is shown as it is.

    Args:
        operation: "blend" pixel by pixel (mix-up), or "paste" a box of the outlier into the ID image (CutMix), lambda
            being the share that is left of the ID image.
        beta_a, beta_b: lambda is drawn from Beta(a, b): OpenMix 10 and 10; MixOE's code 1 and 1 (blend), 2 and 2
            (paste), OpenOOD's MixOE 0.1 and 1.
        outlier_label: "absent" is the last output of a head with one more (OpenMix), "uniform" all classes (MixOE).
    """

    gives = ("targets",)

    def __init__(
        self,
        *,
        operation: Literal["blend", "paste"],
        beta_a: PositiveFloat,
        beta_b: PositiveFloat,
        outlier_label: Literal["absent", "uniform"],
    ) -> None:
        self.operation, self.beta_a, self.beta_b, self.outlier_label = operation, beta_a, beta_b, outlier_label

    def __call__(self, images: Tensor, beside: Beside, generator: torch.Generator) -> OutlierImages:
        count = min(len(images), len(beside.images))
        own, others = beside.images[:count], images[:count]
        share = beta(self.beta_a, self.beta_b, (), generator).float()
        if self.operation == "paste":
            own_N, share = pasted(own, others, share, generator)
        else:
            own_N = share * own + (1 - share) * others
        outputs = torch.arange(beside.outputs, device=own.device)
        of_id = (beside.labels[:count, None] == outputs).to(own.dtype)
        return OutlierImages(own_N, share * of_id + (1 - share) * self._of_outlier(beside, outputs).to(own.dtype))

    def _of_outlier(self, beside: Beside, outputs: Tensor) -> Tensor:
        """The label of an outlier [outputs]."""
        if self.outlier_label == "absent":
            if beside.outputs == beside.classes:
                raise RunError("outlier_label=absent: the head has no output for it; use head=absent_class")
            return outputs == beside.outputs - 1
        return (outputs < beside.classes) / beside.classes


def pasted(own: Tensor, others: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """ID images with a box of the outlier of an area of about 1 - share, and the share that is left of them.

    The box has the images' aspect, a centre drawn uniformly, and is cut at the borders, as in CutMix's code.
    """
    height, width = own.shape[2:]
    side = (1 - share).sqrt()
    centre = torch.rand(2, generator=generator, device=generator.device)
    inside = []
    for size, middle in zip((height, width), centre, strict=True):
        half, place = (size * side).floor() // 2, (middle * size).floor()
        pixel = torch.arange(size, device=own.device)
        inside.append((pixel >= place - half) & (pixel < place + half))
    box = inside[0][:, None] & inside[1][None, :]
    return torch.where(box, others, own), 1 - box.to(own.dtype).mean()
