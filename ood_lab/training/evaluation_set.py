"""Image sets as evaluation reads them: in order, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ood_lab.config.schema import Chain
from ood_lab.dataset.base import ImageSet, Split
from ood_lab.images.pixels import Pixels
from ood_lab.reader.base import Listing
from ood_lab.training.normalise import Normalise
from ood_lab.types import Batch


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
