"""Exact k-nearest-neighbour distance by matrix product, in blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 2**24  # similarities held at once (64 MiB of float32)


class FlatIndex:
    """All rows of a bank [N, D] of unit vectors."""

    def __init__(self, bank: Tensor) -> None:
        self.bank = bank

    def kth_distance(self, queries: Tensor, k: int) -> Tensor:
        """Euclidean distance [Q] from each unit-norm query to its k-th nearest row, k clipped to the bank's size."""
        k = min(k, len(self.bank))
        rows = max(1, BLOCK // len(self.bank))
        parts = []
        for block in queries.split(rows):
            neighbour = kth_largest(block @ self.bank.T, k)
            # From the difference, not from 2 - 2 cos, which loses half the digits of a small distance.
            parts.append((block - self.bank[neighbour]).norm(dim=1))
        return torch.cat(parts) if parts else queries.new_empty(0)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Column [Q] of the k-th largest entry of each row [Q, N].

    The columns are dealt into groups; the k groups with the largest maxima hold the k largest entries. One pass of
    maxima and two small sorts replace a sort of N.
    """
    count = values.shape[1]
    size = math.isqrt(count // k)  # balances the number of maxima with the number of candidates
    groups = count // max(size, 1)
    if size < 2 or groups <= k:
        return values.topk(k).indices[:, -1]
    # Group g holds columns g, g + groups, ...: maxima over the outer dimension run along the memory.
    maxima = values[:, : size * groups].unflatten(1, (size, groups)).amax(1)
    best = maxima.topk(k, sorted=False).indices
    columns = (best[:, None, :] + torch.arange(0, size * groups, groups, device=values.device)[:, None]).flatten(1)
    rest = torch.arange(size * groups, count, device=values.device).expand(len(values), -1)
    columns = torch.cat([columns, rest], 1)
    within = values.gather(1, columns).topk(k).indices[:, -1:]
    return columns.gather(1, within).squeeze(1)
