"""Anchors without a text encoder: a fixed random unit vector for each class."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.anchors.base import Anchors
from ood_lab.config.ranges import PositiveInt
from ood_lab.random import generator


class Random(Anchors):
    """Uniform on the unit sphere, drawn by the seed and the class's word: no meaning of a word is in them.

    In 768 dimensions the cosine of two is 0 +- 0.036; of rows of CLIP's token table it is 0.04 on average.

    Args:
        dimension: D.
    """

    caveat: ClassVar = "anchors are fixed random unit vectors, no embeddings of text"

    def __init__(self, *args: Any, dimension: PositiveInt, **options: Any) -> None:
        super().__init__(*args, **options)
        self.dimension = dimension

    def embed(self) -> Tensor:
        drawn = [torch.randn(self.dimension, generator=generator(self.seed, "anchor", word)) for word in self.words]
        return F.normalize(torch.stack(drawn), dim=1)
