"""The most recent features of each class, in one tensor of fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FeatureBank(nn.Module):
    """A ring of `size` rows for each class; buffers, so that checkpoints hold it.

    While a class is not full, the HamOS release drops what exceeds the room in the batch that fills it; here the
    newest rows always win. Order within a class matters to nothing that reads the bank.
    """

    values: Tensor  # [C, N, D]
    written: Tensor  # [C], rows ever written

    def __init__(self, classes: int, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(classes, size, dim))
        self.register_buffer("written", torch.zeros(classes, dtype=torch.int64))

    @property
    def full(self) -> bool:
        """Whether every row of every class has been written."""
        return bool((self.written >= self.values.shape[1]).all())

    @torch.no_grad()
    def push(self, z_BD: Tensor, labels_B: Tensor) -> None:
        """Write a batch, each row over the oldest of its class."""
        size = self.values.shape[1]
        counts = labels_B.bincount(minlength=len(self.written))
        rank = rank_within_class(labels_B, counts)
        kept = rank >= counts[labels_B] - size  # of more than `size` rows of a class, the last ones
        labels, rank = labels_B[kept], rank[kept]
        place = (self.written[labels] + rank) % size
        self.values[labels, place] = z_BD[kept].to(self.values.dtype)
        self.written += counts


def rank_within_class(labels_B: Tensor, counts_C: Tensor) -> Tensor:
    """How many earlier rows of the batch have the same label [B]."""
    order = labels_B.argsort(stable=True)
    first = counts_C.cumsum(0) - counts_C
    rank = torch.empty_like(labels_B)
    rank[order] = torch.arange(len(labels_B), device=labels_B.device) - first[labels_B[order]]
    return rank
