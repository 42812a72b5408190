"""One NumPy array of images, memory-mapped: `npy: file` (300K RandomImages)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ood_lab.errors import RunError
from ood_lab.reader.base import UNLABELLED, Listing, one_file


def read(root: Path, source: dict[str, Any]) -> Listing:
    """uint8 [N, H, W, 3], without labels; read from the disk where it is used.

    Raises:
        RunError: the file is missing, truncated, or of another type or shape.
    """
    file = one_file(root, source["npy"])
    try:
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RunError(f"{file}: truncated or no NumPy array of numbers ({error}). Download it again.") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise RunError(f"{file}: expected uint8 images [N, H, W, 3], found {pixels.dtype} {list(pixels.shape)}")
    return Listing(np.full(len(pixels), UNLABELLED, np.int64), None, str(file), pixels=pixels, files=(file,))


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """The file, if it is missing."""
    return [] if (root / source["npy"]).is_file() else [source["npy"]]
