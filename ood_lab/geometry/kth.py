"""The k-th largest entry of each row. Shape letters: M rows, N columns."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def kth_largest(rows_MN: Tensor, k: int) -> Tensor:
    """The k-th largest entry of each row [M].

    On the CPU by numpy's vectorised partition, several times faster than a partial sort.
    """
    if rows_MN.device.type != "cpu":
        return rows_MN.topk(k, dim=1).values[:, -1]
    array = rows_MN.numpy()
    return torch.from_numpy(np.partition(array, array.shape[1] - k, axis=1)[:, -k].copy())


def kth_largest_column(rows_MN: Tensor, k: int) -> Tensor:
    """Column of the k-th largest entry of each row [M]; on the CPU the first one with that value."""
    if rows_MN.device.type != "cpu":
        return rows_MN.topk(k, dim=1).indices[:, -1]
    array = rows_MN.numpy()
    value = np.partition(array, array.shape[1] - k, axis=1)[:, -k, None]
    return torch.from_numpy((array == value).argmax(1))
