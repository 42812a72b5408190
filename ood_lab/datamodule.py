"""Serving a resident image set: uint8 tensors on the device, augmented there in batches, resumable to the step."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor

from ood_lab.augmentation.base import Augmentation
from ood_lab.dataset.base import ImageSet, stratified
from ood_lab.random import generator
from ood_lab.types import Batch, Images


class Normalise:
    """uint8 or float [0, 1] images [B, 3, H, W] to standardised float images."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return (images - self.mean.to(images.device)) / self.std.to(images.device)


class TrainLoader:
    """Batches as a function of (seed, epoch, step), so that a resumed run continues exactly where it was.

    The rows of an epoch are a permutation drawn from (seed, epoch); the last incomplete batch is dropped. The
    iterator asks the trainer where it is when the first batch is wanted, since Lightning makes iterators early.
    """

    def __init__(self, module: ResidentDataModule, images: Images) -> None:
        self.module, self.images = module, images
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return self.module.steps_per_epoch

    def order(self, epoch: int) -> Tensor:
        """The rows of an epoch, in order."""
        if self._order[0] != epoch:
            draw = generator(self.module.seed, "order", epoch)
            rows = torch.randperm(len(self.images.labels), generator=draw)
            self._order = (epoch, rows.to(self.images.pixels.device))
        return self._order[1]

    def __iter__(self) -> Iterator[Batch]:
        trainer = self.module.trainer
        assert trainer is not None
        epoch = trainer.current_epoch
        start = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        for step in range(start, len(self)):
            yield self.batch(epoch, step)

    def batch(self, epoch: int, step: int) -> Batch:
        """The batch of one step."""
        m = self.module
        rows = self.order(epoch)[step * m.batch_size : (step + 1) * m.batch_size]
        pixels, labels = self.images.pixels[rows], self.images.labels[rows]
        draw = generator(m.seed, "augment", epoch, step)
        views = [m.augmentation(pixels, draw) for _ in range(m.views)]
        return Batch(m.normalise(torch.cat(views)), labels.repeat(m.views))


class EvalLoader:
    """A split in order, normalised, without augmentation."""

    def __init__(self, images: Images, normalise: Normalise, batch_size: int) -> None:
        self.images, self.normalise, self.batch_size = images, normalise, batch_size

    def __len__(self) -> int:
        return -(-len(self.images.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        pairs = zip(self.images.pixels.split(self.batch_size), self.images.labels.split(self.batch_size), strict=True)
        for pixels, labels in pairs:
            yield Batch(self.normalise(pixels), labels)


class ResidentDataModule(L.LightningDataModule):
    """Train and validation batches of an image set that fits the device.

    Args:
        source: the ID set.
        augmentation: applied per row to training images.
        views: augmented copies of each training image in a batch.
        batch_size: training images a step, before views.
        eval_batch_size: images a step without gradients.
        seed: of the order and the augmentation.
        device: where the images lie.
    """

    def __init__(
        self,
        source: ImageSet,
        augmentation: Augmentation,
        *,
        views: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.augmentation, self.views, self.seed = augmentation, views, seed
        self.eval_batch_size = eval_batch_size
        self.normalise = Normalise(source.mean, source.std)
        self.train_images = Images(*(part.to(device) for part in source.load("train")))
        self.val_images = Images(*(part.to(device) for part in source.load("val")))
        self.batch_size = min(batch_size, len(self.train_images.labels))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_images.labels) // self.batch_size

    def train_dataloader(self) -> TrainLoader:
        return TrainLoader(self, self.train_images)

    def val_dataloader(self) -> EvalLoader:
        return EvalLoader(self.val_images, self.normalise, self.eval_batch_size)

    def train_sample(self, per_class: int) -> EvalLoader:
        """A fixed, class-balanced part of the training images without augmentation (for initial class means)."""
        rows = stratified(self.train_images.labels.cpu(), per_class, generator(self.seed, "train sample"))
        part = Images(*(t[rows.to(t.device)] for t in self.train_images))
        return EvalLoader(part, self.normalise, self.eval_batch_size)
