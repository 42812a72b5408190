"""The one pass: each image goes through the network once, and what every detector needs is saved."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ood_lab.config.image_sets import find_layout
from ood_lab.datamodule import EvalLoader
from ood_lab.progress import track
from ood_lab.storage import write_atomically
from ood_lab.types import FeatureSet

SPACES = ("method", "penultimate", "projection")


class Extracted:
    """The saved outputs of one network on one image set: features, logits, labels, and a projection if there is one."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def features(self, space: str) -> FeatureSet:
        """What a detector is given.

        Args:
            space: "penultimate", "projection", or "method": the projection where the method trains one.

        Raises:
            ValueError: "projection" was asked of a network that has none.
        """
        if space == "method":
            space = "projection" if "projection" in self.tensors else "penultimate"
        key = "features" if space == "penultimate" else space
        if key not in self.tensors:
            raise ValueError(f"space={space}: this network has no projection; use space=penultimate or space=method")
        labels = self.tensors["labels"]
        return FeatureSet(self.tensors[key], self.tensors["logits"], None if (labels < 0).all() else labels)


class Network(Protocol):
    """What the pass needs of a trained method."""

    def eval(self) -> Any: ...

    def extract(self, images: Tensor) -> dict[str, Tensor]: ...


def extract(network: Network, loader: EvalLoader, name: str) -> dict[str, Tensor]:
    """Run the network once over `loader` in eval mode; float32 tensors on the CPU, rows in order."""
    network.eval()
    parts: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for batch in track(loader, f"extract {name}", len(loader)):
            for key, value in network.extract(batch.images).items():
                parts.setdefault(key, []).append(value.float().cpu())
            parts.setdefault("labels", []).append(batch.labels.cpu())
    return {key: torch.cat(values) for key, values in parts.items()}


def feature_key(weights: str, image_set: dict[str, Any], split: str, transform: dict[str, Any]) -> str:
    """Twelve digits naming features by what they depend on.

    That is the weights' digest, the set's description, the names and sizes of its files, and the transform. Where the
    files lie does not count.
    """
    described = {k: v for k, v in image_set.items() if k not in ("root", "how_to_get", "licence", "recipe", "layouts")}
    text = json.dumps([weights, described, files_of(image_set), split, transform], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def files_of(image_set: dict[str, Any]) -> list[tuple[str, int]]:
    """Name (below root) and size of every file that the set reads; none for an embedded set."""
    layout = find_layout(image_set)
    root = Path(image_set["root"])
    listed = [root / name for name in image_set["layouts"].get(layout, ())]
    files = [p for place in listed for p in (place.rglob("*") if place.is_dir() else [place]) if p.is_file()]
    return sorted((p.relative_to(root).as_posix(), p.stat().st_size) for p in files)


def save_features(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a feature file whole."""
    write_atomically(path, save({k: v.contiguous() for k, v in tensors.items()}))


def load_features(path: Path) -> Extracted:
    """Read a feature file (memory-mapped)."""
    return Extracted(load_file(path))
