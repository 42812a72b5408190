"""One array of images in a NumPy archive: `npz: file` with `key: name` (samples of BigGAN's public code)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ood_lab.errors import RunError
from ood_lab.reader.base import UNLABELLED, Listing, one_file

DAMAGE = (ValueError, EOFError, OSError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read(root: Path, source: dict[str, Any]) -> Listing:
    """uint8 [N, H, W, 3], or [N, 3, H, W] as BigGAN's code writes them, without labels; held in memory.

    Raises:
        RunError: the file is missing or truncated, has no such array, or one of another type or shape.
    """
    file, key = one_file(root, source["npz"]), key_of(source)
    try:
        with _opened(file, key) as stream:
            pixels: NDArray[np.uint8] = npy_format.read_array(stream, allow_pickle=False)
    except DAMAGE as error:
        raise RunError(f"{file}: truncated or no NumPy archive of numbers ({error}). Download it again.") from None
    if pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise RunError(f"{file}: expected uint8 images [N, H, W, 3], found {pixels.dtype} {list(pixels.shape)}")
    return Listing(np.full(len(pixels), UNLABELLED, np.int64), None, f"{file}:{key}", pixels=pixels, files=(file,))


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """The file, if it is missing."""
    return [] if (root / source["npz"]).is_file() else [source["npz"]]


def files(root: Path, source: dict[str, Any]) -> tuple[Path, ...]:
    """The archive."""
    return (root / source["npz"],)


def count(root: Path, source: dict[str, Any]) -> int:
    """How many images there are, from the array's head alone."""
    file, key = one_file(root, source["npz"]), key_of(source)
    try:
        with _opened(file, key) as stream:
            return int(read_head(stream)[0][0])
    except (*DAMAGE, IndexError) as error:
        raise RunError(f"{file}: truncated or no NumPy archive of images ({error}). Download it again.") from None


def read_head(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that a stream holds, from its head alone."""
    major, _ = npy_format.read_magic(stream)
    read = npy_format.read_array_header_1_0 if major == 1 else npy_format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return tuple(shape), dtype


def key_of(source: dict[str, Any]) -> str:
    """The name of the array.

    Raises:
        RunError: the layout names none.
    """
    if "key" not in source:
        raise RunError(f"npz: {source['npz']}: name the array in it, as in {{npz: {source['npz']}, key: x}}")
    return str(source["key"])


@contextmanager
def _opened(file: Path, key: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if key not in names:
            raise RunError(f"{file}: has no array {key!r}, only {', '.join(names) or 'none'}")
        with archive.open(f"{key}.npy") as stream:
            yield stream
