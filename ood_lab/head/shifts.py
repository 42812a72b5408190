"""CSI's head: beside the classes' logits those of classes and shifts together (Tack et al. 2020)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ood_lab.head.base import Head
from ood_lab.parts import SHIFTS


class Shifts(Head):
    """A joint output for each class under each shift; detectors see every image under all shifts.

    They are given "shifts" [B, S, D], the projections of the turned image, not normalised, and "joint" [B, C], the
    joint logits of each class under the shift by which the image was turned, averaged over shifts (CSI's ensemble).
    """

    gives: ClassVar[tuple[str, ...]] = ("shifts", "joint")
    adds: ClassVar[tuple[str, ...]] = ("joint",)
    trained_through: ClassVar[tuple[tuple[str, str], ...]] = (("joint", "joint"),)  # a projector is checked by itself
    reads: ClassVar[tuple[str, ...]] = ("z",)  # its detectors read projections
    TURNS: ClassVar[int] = SHIFTS

    def __init__(self, width: int, projects: bool, classes: int, **options: Any) -> None:
        super().__init__(width, projects, classes, **options)
        self.joint = nn.Linear(width, classes * SHIFTS)

    def added(self, features_BD: Tensor) -> dict[str, Tensor]:
        return {"joint": self.joint(features_BD)}

    def tested_turned(self, features_SBD: Tensor) -> dict[str, Tensor]:
        """What detectors are given for the features of each image under each shift."""
        assert self.projector is not None
        blocks = self.joint(features_SBD).unflatten(2, (SHIFTS, -1)).diagonal(dim1=0, dim2=2)  # [B, C, S]
        projections = torch.stack([self.projector(rows).float() for rows in features_SBD], dim=1)
        return {"shifts": projections, "joint": blocks.mean(2)}
