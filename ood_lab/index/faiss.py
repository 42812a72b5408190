"""The same search by faiss, on the CPU or on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FaissIndex:
    """All rows of a bank [N, D] of unit vectors, in faiss's flat index (exact).

    A faiss that was built for GPUs searches on the first of them, if there is one.
    """

    def __init__(self, bank: Tensor) -> None:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self.bank = bank
        self._index: Any = faiss.IndexFlatIP(bank.shape[1])
        if getattr(faiss, "get_num_gpus", lambda: 0)() > 0:
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)
        self._index.add(bank.float().numpy())

    def kth_distance(self, queries: Tensor, k: int) -> Tensor:
        """Euclidean distance [Q] from each unit-norm query to its k-th nearest row, k clipped to the bank's size."""
        _, rows = self._index.search(queries.float().numpy(), min(k, len(self.bank)))
        return (queries - self.bank[torch.from_numpy(rows[:, -1])]).norm(dim=1)
