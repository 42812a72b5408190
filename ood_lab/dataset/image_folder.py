"""A folder of images, with one folder a class or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ood_lab.config.errors import RunError
from ood_lab.dataset.base import ImageSet, Split, stack, unlabelled
from ood_lab.progress import track
from ood_lab.types import Images

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}


def read_folder(root: str | Path, folder: str, exclude: list[str] | None = None) -> Images:
    """Every image below `root/folder`, in sorted order; labels are the class folders' ranks, -1 without folders.

    Raises:
        RunError: a file can't be decoded (it is named), or there is no image at all.
    """
    base = Path(root) / folder
    folders = sorted(p.name for p in base.iterdir() if p.is_dir())
    classes = [name for name in folders if name not in (exclude or [])]
    places = [base / name for name in classes] if folders else [base]
    paths = [p for place in places for p in sorted(place.rglob("*")) if p.suffix.lower() in SUFFIXES]
    if not paths:
        raise RunError(f"no image below {base}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    pixels = stack(_open(path) for path in track(paths, f"read {folder}"))
    if not folders:
        return unlabelled(pixels)
    rank = {name: i for i, name in enumerate(classes)}
    return Images(pixels, torch.tensor([rank[p.relative_to(base).parts[0]] for p in paths]))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"{path}: not a readable image ({error}). Replace the file or remove it.") from None


@dataclass(kw_only=True)
class ImageFolder(ImageSet):
    """A set that is read whole.

    Args:
        exclude: class folders that are left out.
    """

    exclude: list[str]

    def load(self, split: Split) -> Images:
        (folder,) = self.layouts[self.layout()]
        return read_folder(self.root, folder, self.exclude)
