"""NPOS: noise around rows at the boundary of their class, as far out as their neighbours say (Tao et al. 2023).

Shape letters: C classes, N bank rows a class, A anchors, S noise vectors, K points kept of an anchor, D features.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.geometry.kth import kth_largest
from ood_lab.synthesizer.base import FromBank, by_class
from ood_lab.types import Outliers

Keeping = Literal["each", "released"]
BLOCKS = 4  # of the rows, of whose similarities only those on and above the diagonal are computed


def boundary_points(
    bank_CND: Tensor,
    *,
    noise_SD: Tensor,
    order_CE: Tensor,
    neighbor: int,
    anchors: int,
    per_anchor: int,
    deviation: float,
    keeping: Keeping = "each",
) -> Tensor:
    """Outliers [C, A K, D] in the space of the bank, in which features are not normalised.

    For each class: of the E rows farthest from their `neighbor`-th neighbour (of unit vectors; a row is its own first)
    A are taken at random; each is moved by every noise vector; of its candidates the K farthest from their
    `neighbor`-th neighbour in the class are kept.

    Args:
        noise_SD: standard normal numbers, the same for all anchors, as in NPOS's code.
        order_CE: random numbers, by which A of the E boundary rows are chosen.
        neighbor: clipped to N.
        keeping: "each" keeps the farthest of each anchor. "released" is NPOS's code, which reads candidates that lie
            anchor by anchor as if they lay noise by noise, and so keeps others.
    """
    k = min(neighbor, bank_CND.shape[1])
    noise = deviation * noise_SD
    kept = []
    for rows, order in zip(bank_CND, order_CE, strict=True):
        units = F.normalize(rows, dim=1)
        similarity = _gram(units)
        boundary = kth_largest(similarity, k).topk(order.shape[0], largest=False).indices
        chosen = boundary[order.topk(anchors).indices]
        # Of unit vectors the farthest k-th neighbour has the least k-th similarity. Those of a candidate are sums of
        # its anchor's and its noise's.
        candidates = (rows[chosen, None] + noise).flatten(0, 1)
        lengths = rows[chosen].norm(dim=1)[:, None, None] * similarity[chosen, None]
        reached = (lengths + noise @ units.T).flatten(0, 1) / candidates.norm(dim=1, keepdim=True)
        kept.append(candidates[_farthest(kth_largest(reached, k), anchors, per_anchor, keeping)])
    return torch.stack(kept)


def _gram(units_ND: Tensor) -> Tensor:
    """Similarities of rows with one another [N, N]; each pair of blocks is multiplied once."""
    blocks = units_ND.chunk(BLOCKS)
    out = units_ND.new_empty(len(units_ND), len(units_ND))
    starts = [0, *accumulate(len(block) for block in blocks)]
    for i, block in enumerate(blocks):
        for j in range(i, len(blocks)):
            there = out[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]
            torch.mm(block, blocks[j].T, out=there)
            if j > i:
                out[starts[j] : starts[j + 1], starts[i] : starts[i + 1]] = there.T
    return out


def _farthest(similarity_M: Tensor, anchors: int, per_anchor: int, keeping: Keeping) -> Tensor:
    """Places [A K] of the candidates that are kept, anchor by anchor."""
    count = len(similarity_M) // anchors
    if keeping == "each":
        found = similarity_M.view(anchors, count).topk(per_anchor, dim=1, largest=False).indices
    else:
        found = similarity_M.view(count, anchors).topk(per_anchor, dim=0, largest=False).indices.T
    return (found + count * torch.arange(anchors, device=found.device)[:, None]).flatten()


class KNNBoundary(FromBank):
    """Points around boundary rows of each class, in penultimate space.

    Args:
        neighbor: k; a row counts as its own first neighbour; clipped to the bank's rows a class.
        boundary: E, rows of each class that count as its boundary; clipped to the bank's rows a class.
        anchors: A, of these taken at random.
        candidates: S, noise vectors.
        per_anchor: K, candidates kept of each anchor.
        deviation: of the noise, in each coordinate.
        keeping: see `boundary_points`.
        bank: see `FromBank`.
    """

    space: ClassVar[str] = "penultimate"
    at_most: ClassVar = (("anchors", "boundary"), ("anchors", "bank_size"), ("per_anchor", "candidates"))

    def __init__(
        self,
        *,
        neighbor: PositiveInt,
        boundary: PositiveInt,
        anchors: PositiveInt,
        candidates: PositiveInt,
        per_anchor: PositiveInt,
        deviation: PositiveFloat,
        keeping: Keeping,
        **bank: Any,
    ) -> None:
        super().__init__(**bank)
        self.boundary, self.candidates = min(boundary, self.bank_size), candidates
        self.options: dict[str, Any] = {
            "neighbor": neighbor,
            "anchors": anchors,
            "per_anchor": per_anchor,
            "deviation": deviation,
            "keeping": keeping,
        }

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        classes, _, dim = bank_CND.shape
        noise = torch.randn((self.candidates, dim), generator=generator, device=generator.device).to(bank_CND)
        order = torch.rand((classes, self.boundary), generator=generator, device=generator.device)
        return by_class(boundary_points(bank_CND, noise_SD=noise, order_CE=order, **self.options))
