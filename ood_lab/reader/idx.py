"""MNIST's idx files, plain or gzipped: `idx: [[images, labels], ...]`."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_lab.errors import RunError
from ood_lab.reader.base import Listing

UINT8 = 0x08


def read(root: Path, source: dict[str, Any]) -> Listing:
    """Grey images of all pairs of files, one pair after the other.

    Raises:
        RunError: a file is missing, truncated, or of other dimensions than its partner; it is named.
    """
    files, pixels, labels = [], [], []
    for images_name, labels_name in source["idx"]:
        images_file, labels_file = _either(root, images_name), _either(root, labels_name)
        images, values = _array(images_file, 3), _array(labels_file, 1)
        if len(images) != len(values):
            raise RunError(f"{labels_file}: {len(values)} labels for the {len(images)} images of {images_file}")
        files += [images_file, labels_file]
        pixels.append(images)
        labels.append(values.astype(np.int64))
    joined = np.concatenate(labels)
    classes = tuple(map(str, range(int(joined.max()) + 1)))
    return Listing(joined, classes, str(files[0].parent), pixels=np.concatenate(pixels), files=tuple(files))


def count(root: Path, source: dict[str, Any]) -> int:
    """The number of images that the heads of the files state."""
    total = 0
    for images_name, _ in source["idx"]:
        file = _either(root, images_name)
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            total += int.from_bytes(stream.read(8)[4:], "big")
    return total


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """The files that are missing, plain and gzipped."""
    names = [name for pair in source["idx"] for name in pair]
    return [name for name in names if not (root / name).is_file() and not (root / f"{name}.gz").is_file()]


def _either(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise RunError(f"{root / name}: no such file, nor {name}.gz")


def _array(file: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"{file}: {error}. Download it again.") from None
    head = 4 * (1 + dimensions)
    if len(data) < head or data[:4] != bytes((0, 0, UINT8, dimensions)):
        raise RunError(f"{file}: not an idx file of {dimensions}-dimensional bytes")
    shape = [int(n) for n in np.frombuffer(data[4:head], ">u4")]
    if len(data) - head != np.prod(shape):
        raise RunError(f"{file}: {len(data) - head} bytes of pixels where {np.prod(shape)} belong. Download it again.")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
