"""What every reader gives: a listing of labelled images that are decoded one at a time. No reader imports torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ood_lab.errors import RunError
from ood_lab.reader.picture import decode, to_rgb

UNLABELLED = -1


@dataclass(frozen=True)
class Listing:
    """An ordered list of images.

    Args:
        labels: int64 [N]; -1 for an image without a class.
        classes: the name of each label; None for a set without classes.
        paths: one file an image, or
        pixels: uint8 [N, H, W] or [N, H, W, 3] (may be memory-mapped).
        files: what the listing was read from, for fingerprints and checksums.
        recipe: what generated the pixels, where no file did.
        notes: what was passed over while listing, and why; shown to the user.
        origin: what messages call it.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None
    origin: str
    paths: tuple[Path, ...] | None = None
    pixels: NDArray[np.uint8] | None = None
    files: tuple[Path, ...] = ()
    recipe: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """Image `index`, decoded, in RGB.

        Raises:
            RunError: the file can't be decoded; it is named.
        """
        if self.pixels is not None:
            return to_rgb(Image.fromarray(np.asarray(self.pixels[index])), f"{self.origin}, image {index}")
        assert self.paths is not None
        return decode(self.paths[index])

    def take(self, rows: NDArray[np.int64]) -> Listing:
        """The same set with only `rows`, in that order."""
        return replace(
            self,
            labels=self.labels[rows],
            paths=None if self.paths is None else tuple(self.paths[i] for i in rows),
            pixels=None if self.pixels is None else self.pixels[rows],
        )

    def keep_classes(self, keep: Callable[[str], bool]) -> Listing:
        """Only the images of the classes that `keep` accepts; labels become ranks among them."""
        if self.classes is None:
            return self
        kept = [i for i, name in enumerate(self.classes) if keep(name)]
        if len(kept) == len(self.classes):
            return self
        rank = np.full(len(self.classes) + 1, UNLABELLED, np.int64)  # the last entry serves label -1
        rank[kept] = np.arange(len(kept))
        part = self.take(np.flatnonzero(rank[self.labels] >= 0))
        return replace(part, labels=rank[part.labels], classes=tuple(self.classes[i] for i in kept))


def check_names(names: Sequence[str], origin: str) -> None:
    """Refuse two classes of one name (letter case and Unicode form don't tell classes apart).

    Raises:
        RunError: both are named.
    """
    seen: dict[str, str] = {}
    for name in names:
        plain = same_name(name)
        if plain in seen:
            raise RunError(f"{origin}: two classes of one name, {seen[plain]!r} and {name!r}. Rename or merge them.")
        seen[plain] = name


def same_name(name: str) -> str:
    """A class name without what doesn't tell classes apart: letter case, Unicode form, blanks around it."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def check_no_class_is_empty(listing: Listing) -> None:
    """Refuse an ID set in which a class has no image: every label above it would mean another class.

    Raises:
        RunError: the first empty class is named.
    """
    if listing.classes is None:
        raise RunError(f"{listing.origin}: has no classes; an ID set needs a folder or a label for each")
    counts = np.bincount(listing.labels, minlength=len(listing.classes))
    empty = [name for name, count in zip(listing.classes, counts, strict=True) if count == 0]
    if empty:
        raise RunError(f"{listing.origin}: class {empty[0]!r} has no image. Put its images there, or remove the class.")


def one_file(root: Path, name: str) -> Path:
    """`root/name`, which must be a file.

    Raises:
        RunError: it isn't there.
    """
    path = root / name
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    return path
