"""Training batches, a function of (seed, epoch, step) and resumable to the step.

Nothing else decides what a batch holds: not the number of decoding processes, not the number of devices (rank r of W
takes rows r, r + W, ... of every batch), not the auxiliary set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ood_lab.errors import RunError
from ood_lab.images.pixels import error_given_back, raised
from ood_lab.random import Draws, generator, share
from ood_lab.training.training_images import TrainingImages
from ood_lab.types import Batch

if TYPE_CHECKING:
    from ood_lab.training.datamodule import DataModule


class Order:
    """Row numbers of an endless stream: one permutation of the set after the other, each drawn from (seed, pass)."""

    def __init__(self, count: int, *seed: int | str) -> None:
        self.count, self.seed = count, seed
        self._kept: dict[int, Tensor] = {}

    def permutation(self, number: int) -> Tensor:
        """The rows of one pass over the set, in order."""
        if number not in self._kept:
            self._kept = {k: v for k, v in self._kept.items() if k == number - 1}
            self._kept[number] = torch.randperm(self.count, generator=generator(*self.seed, number))
        return self._kept[number]

    def rows(self, start: int, size: int) -> Tensor:
        """`size` rows from position `start` of the stream."""
        parts, position = [], start
        while position < start + size:
            number, first = divmod(position, self.count)
            last = min(self.count, first + start + size - position)
            parts.append(self.permutation(number)[first:last])
            position += last - first
        return torch.cat(parts)


Pictures = dict[str, list[Tensor]]


class _Steps(Dataset[Pictures | RunError]):
    """The decoded pictures of each step of an epoch, as torch's worker processes want them."""

    def __init__(self, loader: TrainLoader, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, step: int) -> Pictures | RunError:
        return error_given_back(lambda number: self.loader.decoded(self.epoch, number), step)


class TrainLoader:
    """Batches of an epoch, from the step at which training is.

    The rows of an epoch are a permutation; the last incomplete batch is dropped. The auxiliary stream goes on through
    the epochs, wherever the ID set's end. The iterator asks the trainer where it is when the first batch is wanted,
    since Lightning makes iterators early.
    """

    def __init__(self, module: DataModule) -> None:
        self.module = module
        self.id_order = Order(module.train_images.count, module.seed, "order")
        auxiliary = module.auxiliary_images
        self.auxiliary_order = Order(auxiliary.count, module.seed, "auxiliary order") if auxiliary else None
        self._order_of_chosen: tuple[int, Order] | None = None  # of one epoch

    def __len__(self) -> int:
        return self.module.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        trainer = self.module.trainer
        assert trainer is not None
        epoch = trainer.current_epoch
        start = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if self.module.choose is not None:
            self.module.chosen = self.module.choose(epoch)
        steps = range(start, len(self))
        if not self.module.streams:
            for step in steps:
                yield self.batch(epoch, step)
            return
        for step, pictures in zip(steps, self._ahead(epoch, steps), strict=True):
            yield self.batch(epoch, step, raised(pictures))

    def _ahead(self, epoch: int, steps: range) -> DataLoader[Pictures | RunError]:
        """The decoded pictures of `steps`, read by worker processes a few steps ahead of training."""
        workers = self.module.reading.workers
        # Forked, since a trainer can't be pickled; workers touch no device.
        context = "fork" if workers else None
        return DataLoader(
            _Steps(self, epoch), batch_size=None, sampler=steps, num_workers=workers, multiprocessing_context=context
        )

    def batch(self, epoch: int, step: int, decoded: Pictures | None = None) -> Batch:
        """The batch of one step (this device's part of it); `decoded` holds what a worker has read already."""
        m, decoded = self.module, decoded or {}
        rows, views = self._id_rows(epoch, step), self._views(epoch, step)
        pictures = decoded.get("id") or m.train_images.pixels(rows, views)
        images = m.normalise(self._mixed(self._augmented(pictures, m.train_images, views), epoch, step))
        labels = m.train_labels[rows].to(m.device).repeat(m.views)
        counts = self._counts(epoch, step)
        if m.auxiliary_images is None:
            return Batch(images, labels, None, counts)
        pictures = decoded.get("auxiliary") or self._auxiliary_pixels(epoch, step)
        if m.outlier_space == "raw01":
            return Batch(images, labels, m.as_outliers(pictures[0].to(m.device)), counts)
        auxiliary = self._augmented(pictures, m.auxiliary_images, [self._auxiliary_draws(epoch, step)])
        return Batch(images, labels, m.normalise(auxiliary), counts)

    def decoded(self, epoch: int, step: int) -> Pictures:
        """The pictures of a step that lie in files, one tensor a view; resident ones may be on a device."""
        m, out = self.module, {}
        if not m.train_images.resident:
            out["id"] = m.train_images.pixels(self._id_rows(epoch, step), self._views(epoch, step))
        if m.auxiliary_images is not None and not m.auxiliary_images.resident:
            out["auxiliary"] = self._auxiliary_pixels(epoch, step)
        return out

    def _auxiliary_pixels(self, epoch: int, step: int) -> list[Tensor]:
        """The auxiliary images of a step: cropped where the augmentation crops, unless they are served as they are."""
        m, rows = self.module, self._auxiliary_rows(epoch, step)
        assert m.auxiliary_images is not None
        if m.outlier_space == "raw01":
            return list(m.auxiliary_images.plain(rows, len(rows)))
        return m.auxiliary_images.pixels(rows, [self._auxiliary_draws(epoch, step)])

    def _id_rows(self, epoch: int, step: int) -> Tensor:
        return self._all_id_rows(epoch, step)[self.module.mine]

    def _all_id_rows(self, epoch: int, step: int) -> Tensor:
        """Those of all devices."""
        size = self.module.batch_size
        return self.id_order.permutation(epoch)[step * size : (step + 1) * size]

    def _counts(self, epoch: int, step: int) -> np.ndarray:
        """How many rows of each class the batch has on all devices, views counted."""
        m = self.module
        labels = m.train_labels[self._all_id_rows(epoch, step)]
        return m.views * np.bincount(labels.numpy(), minlength=m.classes)

    def _auxiliary_rows(self, epoch: int, step: int) -> Tensor:
        assert self.auxiliary_order is not None
        m, size = self.module, self.module.auxiliary_size
        chosen = m.chosen
        if chosen is None:
            return self.auxiliary_order.rows((epoch * len(self) + step) * size, size)[m.mine]
        if self._order_of_chosen is None or self._order_of_chosen[0] != epoch:
            self._order_of_chosen = epoch, Order(len(chosen), m.seed, "chosen order", epoch)
        return chosen[self._order_of_chosen[1].rows(step * size, size)][m.mine]

    def _views(self, epoch: int, step: int) -> list[Draws]:
        m = self.module
        draw = generator(m.seed, "augment", epoch, step)
        return [share(m.augmentation.draw(m.batch_size, draw), *m.place) for _ in range(m.views)]

    def _auxiliary_draws(self, epoch: int, step: int) -> Draws:
        m = self.module
        draw = generator(m.seed, "augment auxiliary", epoch, step)
        return share(m.augmentation.draw(m.auxiliary_size, draw), *m.place)

    def _augmented(self, pictures: list[Tensor], source: TrainingImages, views: list[Draws]) -> Tensor:
        m = self.module
        parts = [
            m.augmentation.apply(pixels.to(m.device), draws, source.cropped)
            for pixels, draws in zip(pictures, views, strict=True)
        ]
        return torch.cat(parts)

    def _mixed(self, images: Tensor, epoch: int, step: int) -> Tensor:
        """Augmented ID images with what is mixed into them; each view by draws of its own."""
        m = self.module
        if m.mixing is None:
            return images
        draw, parts = generator(m.seed, "mix", epoch, step), []
        for view in images.chunk(m.views):
            draws = share(m.mixing.draw(m.batch_size, len(m.mixed_in), draw), *m.place)
            parts.append(m.mixing.apply(view, m.mixed_in, draws))
        return torch.cat(parts)
