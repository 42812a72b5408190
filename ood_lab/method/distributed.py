"""What a training method does between devices: the rows of all of them, and sums over them."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor


class Distributed(L.LightningModule):
    """Gathers rows in the order in which one device would have them; on one device every method is the identity."""

    @property
    def views(self) -> int:
        """Augmented copies of each ID image in a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define views")

    def _world(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    def _place(self) -> tuple[int, int]:
        """(rank, number of devices)."""
        return (self.trainer.global_rank, self._world()) if self._world() > 1 else (0, 1)

    def _total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all devices."""
        if self._world() == 1:
            return values
        total = self.trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    def gathered(self, rows: Tensor, views: int | None = None) -> Tensor:
        """The rows of all devices [W * n, ...] in the order in which one device would have them; with their gradient.

        What lives across steps (prototypes, a bank) must be written from all rows: between devices, buffers are
        overwritten by those of the first. Each device's loss is then a mean over its own rows plus terms of the
        gathered ones, and averaging the gradients gives those of one device with the whole batch.
        """
        if self._world() == 1:
            return rows
        everywhere = self.all_gather(rows, sync_grads=rows.requires_grad)
        assert isinstance(everywhere, Tensor)
        # [W, V * b, ...]: device r holds rows r, r + W, ... of each view.
        split = everywhere.unflatten(1, (self.views if views is None else views, -1))
        return split.movedim(0, 2).flatten(0, 2)

    def _own_places(self, count: int) -> Tensor:
        """The places of this device's rows [B] among those of all devices."""
        own, world = torch.arange(count, device=self.device), self._world()
        return own if world == 1 else own * world + self.trainer.global_rank
