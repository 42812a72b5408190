"""What an image set is to the rest of the program: a description, and the listing of each of its splits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ood_lab.config.affects import FEATURES, NOTHING, WEIGHTS, of_fields
from ood_lab.config.ranges import ChannelDeviations, ChannelMeans
from ood_lab.errors import NotDefinedError
from ood_lab.random import generator
from ood_lab.reader.base import UNLABELLED, Listing
from ood_lab.reader.id_splits import held_out_per_class
from ood_lab.types import Images

# "ood": all images by which a set is scored; "auxiliary": those that training may use as outliers.
Split = Literal["train", "val", "test", "ood", "auxiliary"]
SIDE = 32  # of generated images


@dataclass(kw_only=True)
class ImageSet:
    """A named set of images.

    A set that is embedded or generated defines `load`; one that lies on the disk defines `listing`.

    Args:
        name: as in results.
        root: folder under which its files lie.
        layouts: layout name to the source of each split (see `ood_lab.reader.layout`); empty for an embedded set.
        how_to_get: one sentence for whoever lacks it.
        licence: as stated by its source.
        mean, std: per channel on the 0..1 scale; used where the set is ID; None for those of its training images.
        recipe: what training on it takes (classes, sizes, epochs); None for a set that is only scored.
    """

    name: str
    root: Annotated[str, NOTHING]  # where images lie and what is said of them changes neither weights nor pixels
    layouts: Annotated[dict[str, dict[str, Any] | None], NOTHING]
    how_to_get: Annotated[str, NOTHING]
    licence: Annotated[str, NOTHING]
    mean: Annotated[ChannelMeans | None, NOTHING]  # images are normalised as the protocol says
    std: Annotated[ChannelDeviations | None, NOTHING]
    recipe: Annotated[dict[str, Any] | None, WEIGHTS]

    def load(self, split: Split) -> Images:
        """Pixels and labels of a split of an embedded or generated set."""
        raise NotDefinedError(self, "load() or listing")

    def listing(self, split: Split, id_val: int = 0) -> Listing:
        """The images of a split.

        Args:
            id_val: test images that are set aside for validation where the set has no validation split of its own.
                They are drawn evenly from the classes by a fixed seed; 0 keeps the whole test set, and validation
                shows the same images.
        """
        images = self.load(split)
        pixels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        labels = images.labels.numpy()
        classes = tuple(map(str, range(int(labels.max()) + 1))) if (labels >= 0).any() else None
        marks = of_fields(type(self))
        made = {key: value for key, value in self.description().items() if FEATURES in marks.get(key, FEATURES)}
        return Listing(labels, classes, self.name, pixels=pixels, recipe=json.dumps(made, sort_keys=True))

    def description(self) -> dict[str, Any]:
        """The configuration node that this set was built from, without its `_target_`."""
        return asdict(self)


def held_out(listing: Listing, split: Split, count: int) -> Listing:
    """The validation or the remaining test part of a test set, `count` images drawn evenly from the classes.

    OpenOOD v1.5 cuts the same sizes from CIFAR's test set by a list of its own.

    Raises:
        RequestError: a class would lose all its test images.
    """
    if count == 0:
        return listing
    labels = torch.from_numpy(listing.labels)
    rows = stratified(labels, held_out_per_class(listing, count), generator("cifar", "val"))
    keep = torch.zeros(len(labels), dtype=torch.bool)
    keep[rows] = True
    keep = keep if split == "val" else ~keep
    return listing.take(np.flatnonzero(keep.numpy()))


def stack(images: Iterable[Image.Image]) -> Tensor:
    """uint8 [N, 3, H, W] from pictures of one size."""
    arrays = [np.asarray(image.convert("RGB")) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def unlabelled(pixels: Tensor) -> Images:
    """An image set without labels."""
    return Images(pixels, torch.full((len(pixels),), UNLABELLED, dtype=torch.int64))


def stratified(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Sorted indices of `per_class` random rows of each class (all of a smaller class)."""
    picks = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1)
        picks.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return torch.cat(picks).sort().values
