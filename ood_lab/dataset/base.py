"""What an image set is to the rest of the program, and how PIL images become its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ood_lab.config.image_sets import describe_missing, find_layout
from ood_lab.config.ranges import NonNegativeFloat, PositiveFloat
from ood_lab.types import Images

Split = Literal["train", "val", "test"]
SIDE = 32


@dataclass(kw_only=True)
class ImageSet:
    """A named set of images.

    Args:
        name: as in results.
        root: folder under which its files lie.
        layouts: layout name to the files (relative to root) that show it is there; empty for an embedded set.
        how_to_get: one sentence for whoever lacks it.
        licence: as stated by its source.
        mean, std: per channel on the 0..1 scale; used where the set is ID.
        recipe: what training on it takes (classes, epochs, sizes); None for a set that is only scored.
    """

    name: str
    root: str
    layouts: dict[str, list[str]]
    how_to_get: str
    licence: str
    mean: list[NonNegativeFloat]
    std: list[PositiveFloat]
    recipe: dict[str, Any] | None

    def load(self, split: Split) -> Images:
        """Pixels and labels of a split; a set that is only scored has "test"."""
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    def layout(self) -> str:
        """The layout found under `root`.

        Raises:
            FileNotFoundError: none is complete; the message names the missing files and how to get them.
        """
        node = {"name": self.name, "root": self.root, "layouts": self.layouts, "how_to_get": self.how_to_get}
        found = find_layout(node)
        if found is None:
            raise FileNotFoundError(describe_missing(node))
        return found


def to_square(image: Image.Image, side: int = SIDE) -> Image.Image:
    """RGB, short side to `side` (bilinear, antialiased by PIL), centre crop: OpenOOD's test transform."""
    image = image.convert("RGB")
    width, height = image.size
    short = min(width, height)
    if short != side:
        image = image.resize((int(width * side / short), int(height * side / short)), Image.Resampling.BILINEAR)
    width, height = image.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image if (width, height) == (side, side) else image.crop((left, top, left + side, top + side))


def stack(images: Iterable[Image.Image]) -> Tensor:
    """uint8 [N, 3, SIDE, SIDE] from PIL images."""
    arrays = [np.asarray(to_square(image)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def unlabelled(pixels: Tensor) -> Images:
    """An image set without labels."""
    return Images(pixels, torch.full((len(pixels),), -1, dtype=torch.int64))


def stratified(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Sorted indices of `per_class` random rows of each class (all of a smaller class)."""
    picks = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1)
        picks.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return torch.cat(picks).sort().values
