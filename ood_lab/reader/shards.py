"""A folder of shards with a manifest, as `task=synthesize` writes it: `shards: folder`.

A shard is a safetensors file of some items; the tensors' first dimension counts items. Images are "images", uint8
[n, S, S, 3], with "labels", int64 [n], where they have classes. The manifest names every shard with its bytes and
SHA-256, and is written last: a folder without one is not complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_lab.errors import RunError
from ood_lab.reader.base import UNLABELLED, Listing

MANIFEST = "manifest.json"
TYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32, "F16": np.float16}


@dataclass(frozen=True)
class Shard:
    """One file of a set: its name, how many items it has, and what its bytes must be."""

    file: str
    items: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Args:
        key: of all that the items depend on.
        shards: in the order of their items.
        classes: the name of each label; None where items have none.
        about: how it was made.
    """

    key: str
    shards: tuple[Shard, ...]
    classes: tuple[str, ...] | None
    about: dict[str, Any]

    @property
    def items(self) -> int:
        """How many there are."""
        return sum(shard.items for shard in self.shards)

    def text(self) -> str:
        """The manifest as it is stored."""
        return json.dumps({"items": self.items, **asdict(self)}, indent=1)


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        RunError: there is none, or it can't be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RunError(f"{path} is not there: the shards in {folder} are not complete. Run the command that makes them")
    try:
        node = json.loads(path.read_text())
        shards = tuple(Shard(**shard) for shard in node["shards"])
        if not all(isinstance(n, int) and n >= 0 for shard in shards for n in (shard.items, shard.bytes)):
            raise TypeError("items and bytes are no numbers")
        classes = None if node["classes"] is None else tuple(node["classes"])
        return Manifest(node["key"], shards, classes, node["about"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} can't be read ({error}). Move it away: the command that made the shards writes it again"
        ) from None


def wrong_sizes(folder: Path, manifest: Manifest) -> list[str]:
    """The shards that are missing, or have another number of bytes than the manifest says."""
    return [
        shard.file
        for shard in manifest.shards
        if not (folder / shard.file).is_file() or (folder / shard.file).stat().st_size != shard.bytes
    ]


def digest(path: Path) -> str:
    """The SHA-256 of a shard."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardedRows:
    """One tensor of all shards, as an array that is read from the disk where it is indexed, by row, rows or mask."""

    def __init__(self, files: list[Path], name: str) -> None:
        self._parts = [mapped(file, name) for file in files]
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.shape = (int(self._ends[-1]), *self._parts[0].shape[1:])
        self.dtype, self.ndim = self._parts[0].dtype, self._parts[0].ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != self.shape[:1]:
                raise IndexError(f"a mask of shape {index.shape} for {len(self)} rows")
            index = np.flatnonzero(index)
        index = np.where(index < 0, index + len(self), index)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"rows {index.min()} .. {index.max()} of {len(self)}")
        parts = np.searchsorted(self._ends, index, side="right")
        if index.ndim == 0:
            return self._row(int(parts), int(index))
        found = np.empty((len(index), *self.shape[1:]), self.dtype)
        for part in np.unique(parts):
            own = parts == part
            found[own] = self._parts[part][index[own] - (self._ends[part] - len(self._parts[part]))]
        return found

    def _row(self, part: int, row: int) -> NDArray[Any]:
        return np.asarray(self._parts[part][row - (self._ends[part] - len(self._parts[part]))])

    @cached_property
    def whole(self) -> NDArray[Any]:
        """All rows in memory."""
        return self[:]


def mapped(file: Path, name: str) -> NDArray[Any]:
    """A tensor of a safetensors file, memory-mapped: a JSON header behind its length in 8 bytes, then the numbers.

    Raises:
        RunError: the file is cut, or has no such tensor.
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            entry = json.loads(opened.read(length))[name]
        start, end = entry["data_offsets"]
        if 8 + length + end > file.stat().st_size:
            raise ValueError(f"{end:,} bytes of numbers stated, {file.stat().st_size - 8 - length:,} there")
        return np.memmap(file, TYPES[entry["dtype"]], "r", 8 + length + start, tuple(entry["shape"]))
    except (OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise RunError(
            f"{file}: no whole shard with {name!r} ({error}). The command that made the shards makes it again"
        ) from None


def rows_of(folder: Path, name: str) -> ShardedRows:
    """One tensor of a complete set.

    Raises:
        RunError: the set is not complete, a shard is cut, or it holds no such tensor.
    """
    return ShardedRows([folder / shard.file for shard in load_manifest(folder).shards], name)


def read(root: Path, source: dict[str, Any]) -> Listing:
    """The images of a set, read from the disk where they are used.

    Raises:
        RunError: the set is not complete, a shard is missing or damaged, or it holds no images.
    """
    folder = root / source["shards"]
    manifest = load_manifest(folder)
    if wrong := wrong_sizes(folder, manifest):
        raise RunError(
            f"{folder / wrong[0]}: missing, or not the shard that {MANIFEST} names. The command that made the shards "
            "makes it again"
        )
    files = [folder / shard.file for shard in manifest.shards]
    pixels: Any = ShardedRows(files, "images")
    labels = np.full(manifest.items, UNLABELLED, np.int64)
    if manifest.classes is not None:
        labels = ShardedRows(files, "labels").whole
    return Listing(labels, manifest.classes, str(folder), pixels=pixels, files=(folder / MANIFEST, *files))


def is_there(root: Path, source: dict[str, Any]) -> list[str]:
    """The manifest, if it is missing."""
    name = f"{source['shards']}/{MANIFEST}"
    return [] if (root / name).is_file() else [name]


def files(root: Path, source: dict[str, Any]) -> tuple[Path, ...]:
    """The manifest and every shard."""
    folder = root / source["shards"]
    return (folder / MANIFEST, *(folder / shard.file for shard in load_manifest(folder).shards))


def count(root: Path, source: dict[str, Any]) -> int:
    """How many images the manifest names."""
    return load_manifest(root / source["shards"]).items
