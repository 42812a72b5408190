"""A file of features of any network: `.npz` or `.safetensors`, with names such as train/features and svhn/logits.

Names and shapes are checked from the headers, before torch is imported.
"""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ood_lab.errors import RequestError
from ood_lab.evaluation.given_shapes import WHAT, Shape, check_shapes
from ood_lab.reader.npz import DAMAGE, read_head

# What the libraries raise for files that are damaged, encrypted, or of another kind than their names say.
UNREADABLE = (*DAMAGE, SafetensorError, tokenize.TokenError, RuntimeError)
NAMES = (
    "train/features, test/features and NAME/features for each OOD set (near/NAME/features for a near one); beside "
    "features logits and labels; head/weight and head/bias"
)


@dataclass
class FeaturesFile:
    """What a file holds.

    Args:
        sets: "train", "test", perhaps "val", and the OOD sets: features, logits and labels by name; arrays, or shapes
            where only the headers were read.
        near: the names of the OOD sets that are near.
        head: weight and bias, where there are any.
    """

    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    near: list[str] = field(default_factory=list)
    head: dict[str, Any] = field(default_factory=dict)

    @property
    def ood(self) -> dict[str, dict[str, Any]]:
        """The OOD sets."""
        return {name: value for name, value in self.sets.items() if name not in ("train", "val", "test")}


def read_features_file(path: Path) -> FeaturesFile:
    """Read a file of features.

    Raises:
        RequestError: it is damaged, holds something else, or lacks a set.
    """
    return _sorted(path, _arrays(path))


def check_features_file(path: Path) -> None:
    """Check names and shapes, without reading the arrays.

    Raises:
        RequestError: see `read_features_file`; or the shapes do not fit together.
    """
    found = _shapes(path)
    try:
        check_shapes(found.sets, found.head)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


def _sorted(path: Path, values: Mapping[str, Any]) -> FeaturesFile:
    """What is what, by the names."""
    found = FeaturesFile()
    for name, value in values.items():
        group, _, what = name.rpartition("/")
        if group == "head" and what in ("weight", "bias"):
            found.head[what] = value
            continue
        mark, _, rest = group.partition("/")
        own = rest if mark in ("near", "far") and rest else group
        of_id = own in ("train", "val", "test", "head") and mark in ("near", "far")
        if what not in WHAT or not own or group in ("near", "far") or of_id:
            raise RequestError(f"{path}: holds {name!r}; expected {NAMES}")
        if mark == "near" and rest and own not in found.near:
            found.near.append(own)
        if what in found.sets.setdefault(own, {}):
            raise RequestError(f"{path}: {own}/{what} is there twice, as near and as far; keep one")
        found.sets[own][what] = value
    for needed in ("train", "test"):
        if "features" not in found.sets.get(needed, {}):
            raise RequestError(f"{path}: no {needed}/features; expected {NAMES}")
    if not found.ood:
        raise RequestError(f"{path}: no OOD set; expected {NAMES}")
    return found


def _arrays(path: Path) -> dict[str, Any]:
    with _readable(path):
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file  # numpy has no bfloat16

            return dict(load_file(path))
        with _npz(path) as file:
            return {name: file[name] for name in file.files}


def _shapes(path: Path) -> FeaturesFile:
    """The same with the shape of each array, from the headers; names are checked before they are read."""
    with _readable(path):
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
                return _sorted(path, {name: tuple(file.get_slice(name).get_shape()) for name in names})
        with _npz(path) as file:
            _sorted(path, dict.fromkeys(file.files))
            return _sorted(path, {name: _shape_in(file.zip, name) for name in file.files})


def _npz(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays as np.savez writes it, or it is cut off")
    return np.load(path, allow_pickle=False)


def _shape_in(archive: zipfile.ZipFile, name: str) -> Shape:
    entry = f"{name}.npy"
    with archive.open(entry if entry in archive.namelist() else name) as file:
        shape, dtype = read_head(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects; expected numbers")
    return shape


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise RequestError(f"{path} can't be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from None
