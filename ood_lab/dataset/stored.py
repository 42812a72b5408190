"""Any image set that lies on the disk, in whichever of its layouts is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from ood_lab.config.affects import NOTHING, WEIGHTS
from ood_lab.config.ranges import PositiveInt
from ood_lab.dataset.base import ImageSet, Split, held_out
from ood_lab.errors import RunError
from ood_lab.reader.base import Listing
from ood_lab.reader.id_splits import read_id_split
from ood_lab.reader.layout import find_layout, layouts_of, missing_files, read_layout


@dataclass(kw_only=True)
class Stored(ImageSet):
    """A set read by the readers that its layouts name.

    Args:
        include: class folders that make up the set; None for all.
        exclude: class folders that are left out beside an ID set (its benchmark's name), or beside "any".
        benchmark: of the ID set that this set is used beside.
        draw: a seeded draw of classes ({count, seed}), or its complement ({count, seed, rest: true}); None for all.
        count: images of the "ood" split, if the source states it; else None.
        checksums: file (relative to the root) to "md5:..." or "sha256:...".
        downloads: public files, each {url, file, checksum, unpack, expect}.

    Image lists are taken as they are: `include`, `exclude` and `draw` apply to the other layouts.
    """

    include: Annotated[list[str] | None, WEIGHTS]  # which files are read counts by itself among features
    exclude: Annotated[dict[str, list[str]], WEIGHTS]
    benchmark: Annotated[str, NOTHING]
    draw: Annotated[dict[str, Any] | None, WEIGHTS]
    count: PositiveInt | None
    checksums: Annotated[dict[str, str], NOTHING]
    downloads: Annotated[list[dict[str, Any]], NOTHING]

    def listing(self, split: Split, id_val: int = 0) -> Listing:
        """See `ImageSet.listing`.

        Raises:
            RunError: no layout is complete (what is missing is named), or a file of it can't be read.
        """
        node = self.description()
        role = split if split in ("ood", "auxiliary") else "id"
        layout = find_layout(node, role)
        if layout is None:
            absent = missing_files(node, next(iter(layouts_of(node))), role)[0]
            raise RunError(f"{self.name}: {self.root}/{absent} is not there. {self.how_to_get}")

        if role != "id":
            return read_layout(node, layout, split)

        def part(name: str) -> Listing:
            return read_id_split(node, layout, name)

        own_val = "val" in layouts_of(node)[layout]
        if split == "train" or (own_val and id_val):
            return part(split)
        if own_val:
            return joined([part("val"), part("test")])
        return held_out(part("test"), split, id_val)


def joined(parts: list[Listing]) -> Listing:
    """Listings of one set, one after the other."""
    first = parts[0]
    paths = None if first.paths is None else tuple(p for part in parts for p in part.paths or ())
    pixels = None
    if first.pixels is not None:
        pixels = np.concatenate([part.pixels for part in parts if part.pixels is not None])
    files = tuple(f for part in parts for f in part.files)
    return Listing(np.concatenate([p.labels for p in parts]), first.classes, first.origin, paths, pixels, files)
