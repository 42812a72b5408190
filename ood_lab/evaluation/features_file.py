"""A file of features of any network: `.npz` or `.safetensors`, with names such as train/features and svhn/logits."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from ood_lab.errors import RequestError
from ood_lab.evaluation.given_features import WHAT

NAMES = (
    "train/features, test/features and NAME/features for each OOD set (near/NAME/features for a near one); beside "
    "features logits and labels; head/weight and head/bias"
)


@dataclass
class FeaturesFile:
    """What a file holds.

    Args:
        sets: "train", "test", perhaps "val", and the OOD sets: features, logits and labels by name.
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
    found = FeaturesFile()
    for name, value in _arrays(path).items():
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
    try:
        if path.suffix.lower() == ".safetensors":
            return dict(load_file(path))
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array; np.savez writes several by name")
        with file:
            return {name: file[name] for name in file.files}
    except (SafetensorError, zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise RequestError(f"{path} can't be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from None
