"""Training images by row: resident on the device, or decoded for each step. Both give the same rows the same draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ood_lab.augmentation.base import Augmentation
from ood_lab.augmentation.simclr import crop_boxes
from ood_lab.errors import NotDefinedError
from ood_lab.images.pixels import Decoded, Reading, Streamed
from ood_lab.images.transform import Transform
from ood_lab.random import Draws
from ood_lab.reader.base import Listing


class TrainingImages:
    """Images that are asked for by row.

    `pixels(rows, views)` gives uint8 [n, 3, S, S] for each view's draws; `cropped` says whether the draws' boxes are
    applied already.
    """

    resident: bool
    cropped: bool
    count: int

    def pixels(self, rows: Tensor, views: Sequence[Draws]) -> list[Tensor]:
        """The images of `rows`, once for each of `views`."""
        raise NotDefinedError(self, "pixels")

    def plain(self, rows: Tensor, size: int) -> Iterator[Tensor]:
        """The images of `rows` as evaluation sees them, uint8 [n, 3, S, S], `size` at a time."""
        raise NotDefinedError(self, "plain")


class Resident(TrainingImages):
    """One uint8 tensor on the device; the augmentation crops there."""

    resident, cropped = True, False

    def __init__(self, decoded: Decoded, device: torch.device) -> None:
        self.tensor = decoded.rows(slice(None)).to(device)
        self.count = len(decoded)

    def pixels(self, rows: Tensor, views: Sequence[Draws]) -> list[Tensor]:
        taken = self.tensor[rows.to(self.tensor.device)]
        return [taken for _ in views]

    def plain(self, rows: Tensor, size: int) -> Iterator[Tensor]:
        for part in rows.split(size):
            yield self.tensor[part.to(self.tensor.device)]


@dataclass
class Streaming(TrainingImages):
    """Files that are decoded when they are asked for, each view cropped from all pixels of the picture."""

    listing: Listing
    transform: Transform
    crops: bool
    workers: int = 0
    resident = False

    @property
    def cropped(self) -> bool:  # type: ignore[override]
        return self.crops

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.listing)

    def pixels(self, rows: Tensor, views: Sequence[Draws]) -> list[Tensor]:
        pictures: list[list[np.ndarray]] = [[] for _ in views]
        for place, row in enumerate(rows.tolist()):
            image = self.listing.image(row)
            for out, draws in zip(pictures, views, strict=True):
                out.append(self._square(image, {k: v[place : place + 1] for k, v in draws.items()}, row))
        return [torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous() for out in pictures]

    def plain(self, rows: Tensor, size: int) -> Iterator[Tensor]:
        return Streamed(self.listing.take(rows.numpy()), self.transform, self.workers).chunks(size)

    def _square(self, image: Image.Image, draws: Draws, row: int) -> np.ndarray:
        if not self.crops:
            return self.transform(image, f"{self.listing.origin}, image {row}")
        width, height = image.size
        top, left, tall, wide = (float(value) for value in crop_boxes(draws, width / height))
        box = (left * width, top * height, min(width, (left + wide) * width), min(height, (top + tall) * height))
        side = self.transform.side
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))


def training_images(
    listing: Listing, name: str, reading: Reading, augmentation: Augmentation, *, stream: bool, device: torch.device
) -> TrainingImages:
    """Resident images, or streaming ones where `stream` says so or the decoded set exceeds the cache's limit."""
    if not stream:
        opened = reading.open(listing, name)
        if isinstance(opened, Decoded):
            return Resident(opened, device)
    transform = Transform("short_side", reading.resize, reading.side)
    return Streaming(listing, transform, augmentation.crops, reading.workers)
