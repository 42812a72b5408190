"""The one pass: each image goes through the network once, and what every detector needs is saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.datamodule import EvalLoader
from ood_lab.progress import track
from ood_lab.storage import atomic_file
from ood_lab.types import FeatureSet

SPACES = ("method", "penultimate", "projection")
DTYPES = {torch.float32: "F32", torch.int64: "I64"}


class Extracted:
    """The saved outputs of one network on one image set: features, logits, labels, and a projection if there is one.

    `key` names what they depend on (see `feature_key`).
    """

    def __init__(self, tensors: dict[str, Tensor], key: str = "") -> None:
        self.tensors, self.key = tensors, key

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


def extract(network: Network, loader: EvalLoader, name: str) -> Iterator[dict[str, Tensor]]:
    """Run the network once over `loader` in eval mode; float32 tensors and labels on the CPU, a batch at a time."""
    network.eval()
    for batch in track(loader, f"extract {name}", len(loader)):
        with torch.inference_mode():
            outputs = {key: value.float().cpu() for key, value in network.extract(batch.images).items()}
        yield {**outputs, "labels": batch.labels.cpu()}


def feature_key(weights: str, images: list[Any], transform: dict[str, Any]) -> str:
    """Twelve digits naming features by what they depend on.

    Args:
        weights: digest of the network's.
        images: what identifies the images: description of the set, split, names and sizes of its files.
        transform: chain, sizes and normalisation.
    """
    text = json.dumps([weights, images, transform], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save_features(path: Path, batches: Iterable[dict[str, Tensor]], rows: int) -> None:
    """Write a safetensors file of `rows` rows batch by batch: memory holds one batch, however many there are.

    Raises:
        ValueError: the batches don't add up to `rows`.
    """
    stream = iter(batches)
    first = next(stream)
    header: dict[str, Any] = {}
    end = 0
    for key, value in first.items():
        shape = [rows, *value.shape[1:]]
        size = value.element_size() * torch.Size(shape).numel()
        header[key] = {"dtype": DTYPES[value.dtype], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    written = 0
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for batch in chain([first], stream):
            for key, value in batch.items():
                _write_rows(file, 8 + len(text) + header[key]["data_offsets"][0], written, value)
            written += len(batch["labels"])
        if written != rows:
            raise ValueError(f"{path}: {written} rows were extracted where {rows} were announced")


def _write_rows(file: BinaryIO, base: int, row: int, values: Tensor) -> None:
    width = values.element_size() * values[0].numel()
    file.seek(base + row * width)
    file.write(values.contiguous().numpy().tobytes())


def features_path(run_dir: Path, name: str, key: str) -> Path:
    """Where the features of a set lie."""
    return run_dir / "features" / f"{name}-{key}.safetensors"


def load_features(path: Path) -> Extracted:
    """Read a feature file (memory-mapped)."""
    return Extracted(load_file(path), path.stem.rpartition("-")[2])
