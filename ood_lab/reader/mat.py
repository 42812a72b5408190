"""SVHN's cropped digits in a Matlab file: `mat: file`."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ood_lab.errors import RunError
from ood_lab.reader.base import Listing, one_file

DAMAGED = (zlib.error, struct.error, EOFError)  # what scipy lets through


def read(root: Path, source: dict[str, Any]) -> Listing:
    """Images X [32, 32, 3, N] and labels y [N, 1], in which 10 stands for the digit 0.

    Raises:
        RunError: the file is missing, truncated or holds something else.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    file = one_file(root, source["mat"])
    try:
        held = loadmat(file)
        pixels = np.ascontiguousarray(held["X"].transpose(3, 0, 1, 2))
        labels = held["y"].astype(np.int64).reshape(-1) % 10
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError, MatReadError, *DAMAGED) as error:
        raise RunError(f"{file}: truncated or not SVHN's Matlab file ({error}). Download it again.") from None
    if pixels.dtype != np.uint8 or len(pixels) != len(labels):
        raise RunError(f"{file}: expected uint8 images and as many labels, found {pixels.dtype} and {len(labels)}")
    return Listing(labels, tuple(map(str, range(10))), str(file), pixels=pixels, files=(file,))


def count(root: Path, source: dict[str, Any]) -> None:
    """Not known without unpacking the file."""


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """The file, if it is missing."""
    return [] if (root / source["mat"]).is_file() else [source["mat"]]
