"""The pixels of a listing: already decoded (an array or the cache) or decoded when asked for."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ood_lab.errors import RunError
from ood_lab.files.artifact import Artifact
from ood_lab.files.fingerprint import fingerprint
from ood_lab.files.storage import atomic_file, short_name
from ood_lab.images.transform import Chain, Transform
from ood_lab.progress import track
from ood_lab.reader.base import Listing

T = TypeVar("T")


class Pixels(Protocol):
    """uint8 images [N, 3, S, S] that are read in parts."""

    def __len__(self) -> int: ...

    def chunks(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time."""
        ...


@dataclass(frozen=True)
class Decoded:
    """An array [N, 3, S, S] or [N, S, S, 3], in memory or mapped from a file."""

    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, part: slice | NDArray[np.int64]) -> Tensor:
        """uint8 [n, 3, S, S]."""
        taken = np.asarray(self.array[part])
        channels_first = taken if taken.shape[1] == 3 and taken.shape[3] != 3 else taken.transpose(0, 3, 1, 2)
        return torch.from_numpy(np.array(channels_first, order="C"))  # a copy: torch wants it writable

    def chunks(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self.rows(slice(start, start + size))


class _Files(Dataset[Tensor | RunError]):
    """A listing as torch's workers want it; what can't be read is given back as its error."""

    def __init__(self, listing: Listing, transform: Transform) -> None:
        self.listing, self.transform = listing, transform

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> Tensor | RunError:
        return error_given_back(self._square, index)

    def _square(self, index: int) -> Tensor:
        pixels = self.transform(self.listing.image(index), f"{self.listing.origin}, image {index}")
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def error_given_back(make: Callable[[int], T], index: int) -> T | RunError:
    """What `make` gives, or its error as a value: torch adds a worker's traceback to an error that it raises again."""
    try:
        return make(index)
    except RunError as error:
        return error


def raised(value: T | RunError) -> T:
    """The value that a worker gave back; an error is raised here, with its own message."""
    if isinstance(value, RunError):
        raise value
    return value


def _stacked(squares: list[Tensor | RunError]) -> Tensor | RunError:
    good = [square for square in squares if isinstance(square, Tensor)]
    return torch.stack(good) if len(good) == len(squares) else next(s for s in squares if isinstance(s, RunError))


@dataclass(frozen=True)
class Streamed:
    """Images decoded from their files each time, by `workers` processes; memory doesn't grow with their number."""

    listing: Listing
    transform: Transform
    workers: int

    def __len__(self) -> int:
        return len(self.listing)

    def chunks(self, size: int) -> Iterator[Tensor]:
        files = _Files(self.listing, self.transform)
        loader = DataLoader(files, batch_size=size, num_workers=self.workers, collate_fn=_stacked)
        for batch in loader:
            yield raised(batch)


def cache_key(listing: Listing, transform: Transform) -> str:
    """Sixteen digits naming decoded pixels by their origin, files (name, size, times), rows and transform.

    The rows count through the labels and the order of the paths: two lists over one folder don't share a cache.
    """
    rows = [str(p) for p in listing.paths or ()]
    about = [
        listing.origin,
        listing.recipe,
        fingerprint(listing.files),
        rows,
        listing.labels.tolist(),
        transform.chain,
        transform.resize,
        transform.side,
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Reading:
    """How a run reads its image sets.

    Args:
        resize, side: of the square that the network sees, see `Transform`.
        cache: folder of decoded sets; where it can't be written, a note says so and nothing is cached.
        limit_gb: a decoded set larger than this (GiB) isn't cached but decoded each time.
        workers: decoding processes of a set that isn't cached.
    """

    resize: int
    side: int
    cache: Path
    limit_gb: float
    workers: int

    def open(self, listing: Listing, name: str, chain: Chain = "short_side") -> Decoded | Streamed:
        """The pixels of a listing, read by one of the transform chains; `name` is for messages and file names."""
        return open_pixels(listing, Transform(chain, self.resize, self.side), self, name)


def open_pixels(listing: Listing, transform: Transform, reading: Reading, name: str) -> Decoded | Streamed:
    """The array itself where nothing is to be done, else the cache, else the files."""
    if listing.pixels is not None and transform.keeps(*listing.pixels.shape[1:3]) and listing.pixels.ndim == 4:
        return Decoded(listing.pixels)
    shape = (len(listing), 3, transform.side, transform.side)
    if float(np.prod(shape)) > reading.limit_gb * 2**30:
        return Streamed(listing, transform, reading.workers)
    if not listing.files:  # generated: making it again is cheaper than keeping it
        return Decoded(_decode(listing, transform, name, np.empty(shape, np.uint8)))
    try:
        return Decoded(DecodedSet(listing, transform, reading.cache, name).read(_mapped, (ValueError, EOFError)))
    except OSError as error:
        print(
            f"{name}: the decoded images can't be kept in {reading.cache} ({error.strerror or error}); "
            "they are decoded again each time. Choose another folder with paths.cache.",
            file=sys.stderr,
        )
        return Decoded(_decode(listing, transform, name, np.empty(shape, np.uint8)))


@dataclass(frozen=True)
class DecodedSet(Artifact):
    """A listing's images as squares, one array on the disk that all runs share.

    Args:
        folder: of all such sets.
        name: for messages and the file's name.
    """

    listing: Listing
    transform: Transform
    folder: Path
    name: str
    shared: ClassVar[bool] = True

    @cached_property
    def key(self) -> str:
        return cache_key(self.listing, self.transform)

    @property
    def path(self) -> Path:
        return self.folder / f"{short_name(self.name)}-{self.key}.npy"

    def make(self) -> None:
        """Write one picture after the other: where the disk is full a writable map would kill the process."""
        shape = (len(self.listing), 3, self.transform.side, self.transform.side)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with atomic_file(self.path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for pixels in _decoded(self.listing, self.transform, self.name):
                file.write(pixels.tobytes())


def _mapped(path: Path) -> NDArray[np.uint8]:
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def _decoded(listing: Listing, transform: Transform, name: str) -> Iterator[NDArray[np.uint8]]:
    for index in track(range(len(listing)), f"read {name}"):
        yield transform(listing.image(index), f"{listing.origin}, image {index}").transpose(2, 0, 1)


def _decode(listing: Listing, transform: Transform, name: str, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    for index, pixels in enumerate(_decoded(listing, transform, name)):
        out[index] = pixels
    return out
