"""Several listings as one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ood_lab.reader.base import UNLABELLED, Listing


@dataclass(frozen=True)
class Joined(Listing):
    """Images of several sets, one set after the other, without labels; whatever form each set has.

    Args:
        parts: the listings.
        rows: of the parts' images counted through; what this listing holds.
    """

    parts: tuple[Listing, ...] = ()
    rows: NDArray[np.int64] | None = None

    def image(self, index: int) -> Image.Image:
        assert self.rows is not None
        row = int(self.rows[index])
        for part in self.parts:
            if row < len(part):
                return part.image(row)
            row -= len(part)
        raise IndexError(index)

    def take(self, rows: NDArray[np.int64]) -> Listing:
        assert self.rows is not None
        return replace(self, labels=self.labels[rows], rows=self.rows[rows])


def joined(parts: list[Listing]) -> Joined:
    """All images of `parts`."""
    count = sum(map(len, parts))
    origin = " + ".join(f"{part.origin} ({len(part)})" for part in parts)
    files = tuple(file for part in parts for file in part.files)
    labels = np.full(count, UNLABELLED, np.int64)
    recipe = " + ".join(part.recipe for part in parts)
    return Joined(labels, None, origin, files=files, recipe=recipe, parts=tuple(parts), rows=np.arange(count))
