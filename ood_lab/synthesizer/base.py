"""What sources of outliers that draw from a bank begin with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveInt
from ood_lab.memory import Bank
from ood_lab.parts import Dimensions, Memories, Synthesizer
from ood_lab.types import Outliers


class FromBank(Synthesizer):
    """Draws outliers from a bank of recent rows of each class, once every class is full.

    Args:
        bank_size: rows kept for each class.
    """

    def __init__(self, *, bank_size: PositiveInt = 1000) -> None:
        self.bank_size = bank_size

    def keeps(self) -> Memories:
        return {"bank": partial(Bank, size=self.bank_size)}

    def sample(self, kept: Mapping[str, Tensor], dims: Dimensions, generator: torch.Generator) -> Outliers:
        return self.draw(kept["bank"], generator)

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        """Outliers [K, D] and the class each came from; `info` is logged."""
        raise NotImplementedError(f"{type(self).__name__} must define draw()")


def near_pairs(means_CD: Tensor, adjacent: int) -> Tensor:
    """For each class its `adjacent` most similar others: pairs [C * adjacent, 2], class-major (HamOS, Algorithm 1).

    Similarity is the dot product of what is given: pass unit vectors for the cosine. Pairs are directed: (u, v) and
    (v, u) both occur when each is near the other. `adjacent` is clipped to C - 1.
    """
    classes = len(means_CD)
    similarity = means_CD @ means_CD.T
    similarity.fill_diagonal_(-torch.inf)
    near = similarity.topk(min(adjacent, classes - 1), dim=1).indices
    own = torch.arange(classes, device=near.device).unsqueeze(1).expand_as(near)
    return torch.stack((own, near), dim=2).reshape(-1, 2)


@torch.no_grad()
def class_midpoints(
    bank_CND: Tensor, adjacent: int, centroids: Literal["unit", "raw"] = "unit"
) -> tuple[Tensor, Tensor]:
    """Midpoints b = (mu_u + mu_v) / |mu_u + mu_v| of near class pairs [P, D] (HamOS, section 3.2), and pairs [P, 2].

    The centroids are the bank's class means: scaled to unit length (the paper's prototypes lie on the sphere), or raw,
    as the HamOS release uses them for both the similarity and the midpoint.
    """
    means = bank_CND.mean(1)
    if centroids == "unit":
        means = F.normalize(means, dim=1)
    pairs = near_pairs(means, adjacent)
    return F.normalize(means[pairs].sum(1), dim=1), pairs
