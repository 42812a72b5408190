"""DreamOOD's outliers: noise around the embeddings of each class that lie farthest out (Du et al. 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.errors import RunError
from ood_lab.outliers.base import Found, Outliers, in_turn
from ood_lab.progress import track
from ood_lab.random import generator
from ood_lab.synthesizer.knn_boundary import boundary_points


class LowLikelihood(Outliers):
    """Of each class and round, from unit embeddings, the draws with the farthest k-th neighbour in the class.

    In a round every boundary embedding is moved by the same noise vectors, brought back to the sphere, and the farthest
    of its draws are kept, as `synthesizer=knn_boundary` (NPOS) does in a step. BOOD's Table 5 has 2.9 GB of them:
    10,000 of each of CIFAR-100's classes.

    Args:
        neighbor: k; an embedding counts as its own first neighbour; clipped to those of the class.
        boundary: embeddings of each class that are moved: those with the farthest k-th neighbour.
        deviation: of the noise, in each coordinate.
        candidates: noise vectors of a round.
        per_point: draws kept of each boundary embedding in a round.
        rounds: how often noise is drawn.

    Raises:
        RunError: a class has no embeddings.
    """

    at_most: ClassVar = (("per_point", "candidates"),)

    def __init__(
        self,
        *args: Any,
        neighbor: PositiveInt,
        boundary: PositiveInt,
        deviation: PositiveFloat,
        candidates: PositiveInt,
        per_point: PositiveInt,
        rounds: PositiveInt,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.neighbor, self.boundary, self.deviation = neighbor, boundary, deviation
        self.candidates, self.per_point, self.rounds = candidates, per_point, rounds

    def find(self) -> Found:
        labels = self.space.labels
        names, units = self.space.classes, F.normalize(self.space.embeddings, dim=1)
        points = [self._of_class(number, units[labels == number]) for number in track(range(len(names)), "outliers")]
        of = torch.cat([torch.full((len(found),), number) for number, found in enumerate(points)])
        order = in_turn(of)
        return Found(torch.cat(points)[order], of[order], {})

    def _of_class(self, number: int, units_ND: Tensor) -> Tensor:
        if not len(units_ND):
            raise RunError(f"class {self.space.classes[number]} has no embeddings to find outliers around")
        count, found = min(self.boundary, len(units_ND)), []
        for turn in range(self.rounds):
            draw = generator(self.seed, "noise", number, turn)
            points = boundary_points(
                units_ND[None],
                noise_SD=torch.randn(self.candidates, units_ND.shape[1], generator=draw).to(units_ND),
                order_CE=torch.zeros(1, count),
                neighbor=self.neighbor,
                anchors=count,
                per_anchor=self.per_point,
                deviation=self.deviation,
            )
            found.append(F.normalize(points[0], dim=1))
        return torch.cat(found)
