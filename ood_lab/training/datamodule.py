"""Serving image sets to training: batches that are a function of (seed, epoch, step), resumable to the step.

Nothing else decides what a batch holds: not the number of decoding processes, not the number of devices (rank r of W
takes rows r, r + W, ... of every batch), not the auxiliary set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ood_lab.augmentation.base import Augmentation
from ood_lab.config.schema import Chain
from ood_lab.dataset.base import ImageSet, Split, stratified
from ood_lab.errors import RunError
from ood_lab.images.pixels import Decoded, Pixels, Reading, error_given_back, raised
from ood_lab.mixing.base import Mixing
from ood_lab.random import Draws, generator, share
from ood_lab.reader.base import Listing
from ood_lab.training.training_images import TrainingImages, training_images
from ood_lab.types import Batch, OutlierSpace


class Normalise:
    """uint8 or float [0, 1] images [B, 3, H, W] to standardised float images."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        return (images - self.mean.to(images.device)) / self.std.to(images.device)


@dataclass(frozen=True)
class Sizes:
    """Images a step: `batch` before views and `auxiliary`, both over all devices, and `evaluation`.

    With `candidates` a step is served so many auxiliary images, of which `auxiliary` are taken; 0 stands for so many
    that each is served once an epoch. Of the auxiliary set `distinct` images are used; None for all.
    """

    batch: int
    auxiliary: int
    evaluation: int
    candidates: int | None = None
    distinct: int | None = None


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
    """Batches of an epoch, from the step at which training stands.

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


class EvalLoader:
    """A set in order, normalised, without augmentation; only one batch of it is in memory."""

    def __init__(
        self, pixels: Pixels, labels: np.ndarray, normalise: Normalise, batch_size: int, device: torch.device
    ) -> None:
        self.pixels, self.labels, self.normalise = pixels, labels, normalise
        self.batch_size, self.device = batch_size, device

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.pixels)

    def __len__(self) -> int:
        return -(-len(self.pixels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for pixels in self.pixels.chunks(self.batch_size):
            labels = torch.from_numpy(self.labels[start : start + len(pixels)])
            start += len(pixels)
            yield Batch(self.normalise(pixels.to(self.device)), labels.to(self.device))


@dataclass(frozen=True)
class EvaluationSet:
    """One split of an image set, as evaluation sees it.

    Args:
        name: in messages and file names.
        source: the image set.
        split: see `ood_lab.dataset.base.Split`.
        id_val: see `ImageSet.listing`.
        chain: by which its images become squares, see `Transform`.
    """

    name: str
    source: ImageSet
    split: Split
    id_val: int = 0
    chain: Chain = "short_side"

    @cached_property
    def listing(self) -> Listing:
        """Which images there are; read once."""
        return self.source.listing(self.split, self.id_val)


class DataModule(L.LightningDataModule):
    """The image sets of a run in batches: training, validation and test images of the ID set, and OOD sets.

    What training reads is opened when it is asked for, so that evaluation doesn't load it.

    Args:
        source: the ID set.
        augmentation: applied per row to training and auxiliary images.
        reading: sizes, cache and workers.
        auxiliary: a set whose images training uses as outliers.
        mixing, pictures: what is done to augmented ID images, and the set whose pictures it mixes into them.
        ood: OOD sets by name.
        normalise: of every image.
        views: augmented copies of each training image in a batch.
        sizes: images a step.
        stream: whether the ID set is decoded for each step; else it is resident.
        id_val: see `ImageSet.listing`.
        seed: of the orders and the augmentation.
        outlier_space: how auxiliary images are served.
        device: where the images lie and are augmented.
    """

    def __init__(
        self,
        source: ImageSet,
        augmentation: Augmentation,
        reading: Reading,
        *,
        auxiliary: ImageSet | None = None,
        mixing: Mixing | None = None,
        pictures: ImageSet | None = None,
        ood: Mapping[str, EvaluationSet] = MappingProxyType({}),
        normalise: Normalise,
        views: int,
        sizes: Sizes,
        stream: bool = False,
        id_val: int = 0,
        seed: int,
        outlier_space: OutlierSpace = "normalised",
        device: torch.device,
    ) -> None:
        super().__init__()
        self.outlier_space = outlier_space
        self.augmentation, self.views, self.seed = augmentation, views, seed
        self.reading, self.normalise, self.device, self.sizes = reading, normalise, device, sizes
        self.auxiliary, self.stream, self.ood_sets = auxiliary, stream, tuple(ood)
        self.mixing, self.pictures = mixing, pictures
        splits: tuple[Split, Split, Split] = ("train", "val", "test")
        self.evaluation_sets: dict[str, EvaluationSet] = dict(ood)
        for split in splits:
            self.evaluation_sets[split] = EvaluationSet(f"{source.name} {split}", source, split, id_val)
        # A method that chooses the auxiliary images of an epoch beforehand gives their rows when an epoch is begun.
        self.choose: Callable[[int], Tensor] | None = None
        self.chosen: Tensor | None = None

    # What training reads.

    @property
    def listing(self) -> Listing:
        """The training images."""
        return self.evaluation_sets["train"].listing

    @cached_property
    def train_labels(self) -> Tensor:
        return torch.from_numpy(self.listing.labels)

    @cached_property
    def classes(self) -> int:
        return int(self.train_labels.max()) + 1

    @cached_property
    def train_images(self) -> TrainingImages:
        return training_images(
            self.listing,
            self.evaluation_sets["train"].name,
            self.reading,
            self.augmentation,
            stream=self.stream,
            device=self.device,
        )

    @cached_property
    def auxiliary_images(self) -> TrainingImages | None:
        if self._auxiliary is None or self.auxiliary is None:
            return None
        return training_images(
            self._auxiliary, self.auxiliary.name, self.reading, self.augmentation, stream=False, device=self.device
        )

    @property
    def auxiliary_labels(self) -> np.ndarray:
        """The classes of the auxiliary images, -1 for one without."""
        assert self._auxiliary is not None
        return self._auxiliary.labels

    @cached_property
    def _auxiliary(self) -> Listing | None:
        if self.auxiliary is None:
            return None
        listing = self.auxiliary.listing("auxiliary")
        if self.sizes.distinct is not None:
            if self.sizes.distinct > len(listing):
                raise RunError(
                    f"trainer.auxiliary_images={self.sizes.distinct}: {self.auxiliary.name} has {len(listing):,} images"
                )
            # The first of one permutation, so that a larger number keeps those of a smaller one.
            drawn = torch.randperm(len(listing), generator=generator(self.seed, "auxiliary images"))
            rows = drawn[: self.sizes.distinct].sort().values.numpy()
            about = f"{listing.recipe} {self.sizes.distinct} drawn by seed {self.seed}"  # the pixels' cache tells by it
            listing = replace(listing.take(rows), recipe=about)
        return listing

    @cached_property
    def mixed_in(self) -> Tensor:
        """The pictures that are mixed into ID images, uint8 [N, 3, P, P], on the device; P is an eighth larger."""
        assert self.pictures is not None
        side = self.reading.side + self.reading.side // 8
        larger, name = replace(self.reading, resize=side, side=side), self.pictures.name
        opened = larger.open(self.pictures.listing("auxiliary"), name)
        if not isinstance(opened, Decoded):
            raise RunError(
                f"pictures={name}: {len(opened):,} pictures of {side} x {side} pixels are kept in memory, and exceed "
                f"trainer.cache_gb={self.reading.limit_gb:g}; raise it, or choose a smaller set"
            )
        return opened.rows(slice(None)).to(self.device)

    def as_outliers(self, pixels: Tensor) -> Tensor:
        """Auxiliary images as the network is given them, without augmentation."""
        return pixels.float().div_(255) if self.outlier_space == "raw01" else self.normalise(pixels)

    @property
    def batch_size(self) -> int:
        """ID images of a step, over all devices."""
        return min(self.sizes.batch, len(self.train_labels))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_labels) // self.batch_size

    @property
    def auxiliary_size(self) -> int:
        """Auxiliary images that a step is served, over all devices; of candidates as many for each device."""
        if self.sizes.candidates is None or self.auxiliary_images is None:
            return self.sizes.auxiliary
        once = self.auxiliary_images.count * self.batch_size // len(self.train_labels)
        size = max(self.sizes.candidates or once, self.sizes.auxiliary)
        return size - size % self.place[1]

    @property
    def streams(self) -> bool:
        """Whether any training image is decoded in worker processes."""
        return not (self.train_images.resident and (self.auxiliary_images is None or self.auxiliary_images.resident))

    @property
    def place(self) -> tuple[int, int]:
        """(rank, number of devices)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    @property
    def mine(self) -> slice:
        """This device's rows of a batch."""
        return slice(self.place[0], None, self.place[1])

    def train_dataloader(self) -> TrainLoader:
        return TrainLoader(self)

    def evaluation_loader(self, name: str) -> EvalLoader:
        """The images of "train", "val", "test" or of an OOD set in order, without augmentation."""
        images = self.evaluation_sets[name]
        pixels = self.reading.open(images.listing, images.name, images.chain)
        return self._loader(pixels, images.listing.labels)

    def _loader(self, pixels: Pixels, labels: np.ndarray) -> EvalLoader:
        return EvalLoader(pixels, labels, self.normalise, self.sizes.evaluation, self.device)

    def val_dataloader(self) -> EvalLoader:
        return self.evaluation_loader("val")

    def test_dataloader(self) -> list[EvalLoader]:
        """The ID test images, then each OOD set."""
        return [self.evaluation_loader(name) for name in ("test", *self.ood_sets)]

    def predict_dataloader(self) -> list[EvalLoader]:
        """Every set, in the order of `evaluation_sets`."""
        return [self.evaluation_loader(name) for name in self.evaluation_sets]

    def train_sample(self, per_class: int) -> EvalLoader:
        """A fixed, class-balanced part of the training images without augmentation (for initial class means)."""
        rows = stratified(self.train_labels, per_class, generator(self.seed, "train sample")).numpy()
        name = self.evaluation_sets["train"].name
        if self.train_images.resident:
            opened = self.reading.open(self.listing, name)
            pixels: Pixels = Decoded(opened.array[rows]) if isinstance(opened, Decoded) else opened
        else:
            pixels = self.reading.open(self.listing.take(rows), f"{name} sample")
        return self._loader(pixels, self.listing.labels[rows])
