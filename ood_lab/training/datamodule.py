"""The image sets of a run: what is opened when, and the loaders that serve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ood_lab.augmentation.base import Augmentation
from ood_lab.dataset.base import ImageSet, Split, stratified
from ood_lab.errors import RunError
from ood_lab.images.pixels import Decoded, Pixels, Reading
from ood_lab.mixing.base import Mixing
from ood_lab.random import generator
from ood_lab.reader.base import Listing
from ood_lab.training.evaluation_set import EvalLoader, EvaluationSet
from ood_lab.training.normalise import Normalise
from ood_lab.training.train_loader import TrainLoader
from ood_lab.training.training_images import TrainingImages, training_images
from ood_lab.types import OutlierSpace


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
