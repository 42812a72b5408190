"""Passes over the training sets in evaluation mode, for what is chosen before an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ood_lab.progress import track
from ood_lab.random import derive_seed
from ood_lab.training.datamodule import DataModule

if TYPE_CHECKING:
    from ood_lab.method.base import Method


class TrainingPasses:
    """What a selector sees of the network before an epoch (see `selector.base.Passes`).

    Args:
        method: whose network it is.
        data: with the images.
        place: (rank, number of devices); each device passes its own share.
        total: the sum of a tensor over all devices.
    """

    def __init__(
        self, method: Method, data: DataModule, place: tuple[int, int], total: Callable[[Tensor], Tensor]
    ) -> None:
        self._method, self._data, self._place, self.total = method, data, place, total
        self.run_seed, self.seed = method.parts.seed, derive_seed(method.parts.seed, "pool", method.current_epoch)
        self.features, self.device = method.parts.dims.features, method.device

    def of_id(self) -> Iterator[Tensor]:
        """Penultimate features [n, D] of this device's share of the ID training images, without augmentation."""
        rows = torch.arange(self._data.train_images.count)[self._share]
        plain, normalise = self._data.train_images.plain, self._data.normalise
        yield from self._passed(plain, normalise, rows, "features of the ID images")

    def of_auxiliary(self, rows: Tensor, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Places in `rows`, and penultimate features of these auxiliary images: this device's share of them."""
        images = self._data.auxiliary_images
        assert images is not None
        places = torch.arange(len(rows))[self._share]
        passed = self._passed(images.plain, self._data.as_outliers, rows[places.to(rows.device)], what)
        yield from zip(places.split(self._size), passed, strict=True)

    @property
    def _share(self) -> slice:
        return slice(self._place[0], None, self._place[1])

    @property
    def _size(self) -> int:
        return self._data.sizes.evaluation

    def _passed(
        self,
        images: Callable[[Tensor, int], Iterator[Tensor]],
        as_input: Callable[[Tensor], Tensor],
        rows: Tensor,
        what: str,
    ) -> Iterator[Tensor]:
        chunks, steps = images(rows.cpu(), self._size), -(-len(rows) // self._size)
        if self._place[0] == 0:
            chunks = track(chunks, f"epoch {self._method.current_epoch + 1}: {what}", steps)
        for pixels in chunks:
            yield self._method.network(as_input(pixels.to(self.device))).features
