"""Exact nearest-neighbour search."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

Engine = Literal["torch", "faiss"]


class Index(Protocol):
    """A bank of unit vectors that can be searched."""

    def kth_distance(self, queries: Tensor, k: int) -> Tensor: ...


def build_index(bank: Tensor, engine: Engine) -> Index:
    """The bank [N, D] of unit vectors in the engine of that name."""
    if engine == "faiss":
        from ood_lab.index.faiss import FaissIndex

        return FaissIndex(bank)
    from ood_lab.index.flat import FlatIndex

    return FlatIndex(bank)
