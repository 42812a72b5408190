"""The one pass: each image goes through the network once, and what every detector needs is saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ood_lab.files.storage import atomic_file, short_name
from ood_lab.progress import track
from ood_lab.scorer.base import Scorer
from ood_lab.training.evaluation_set import EvalLoader
from ood_lab.types import FeatureSet

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}
Precision = Literal["32-true", "bf16-mixed"]


class Extracted:
    """The saved outputs of one network on one image set: features, logits, labels, and a projection if there is one.

    `key` names what they depend on (see `feature_key`).
    """

    def __init__(self, tensors: dict[str, Tensor], key: str = "") -> None:
        self.tensors, self.key = tensors, key

    def features(self, space: str) -> FeatureSet:
        """What a detector is given, in float32.

        Args:
            space: the name of a tensor; "penultimate" for the features before the head; "method" for the projection
                where the method trains one, else for the penultimate features.

        Raises:
            ValueError: the network gives no such tensor.
        """
        if space == "method":
            space = "projection" if "projection" in self.tensors else "penultimate"
        key = "features" if space == "penultimate" else space
        if key not in self.tensors:
            hint = "; use space=penultimate or space=method" if space == "projection" else ""
            raise ValueError(f"this network gives no {space}{hint}")
        labels = self.tensors["labels"]
        known = None if (labels < 0).all() else labels
        logits = self.tensors.get("logits", labels.new_empty(len(labels), 0))
        return FeatureSet(self.tensors[key].float(), logits.float(), known)

    def serves(self, scorer: Scorer) -> bool:
        """Whether a detector can be given these: points of a feature space lack what only images have."""
        return self.has(scorer.space) and (scorer.features_alone or "logits" in self.tensors)

    def has(self, space: str) -> bool:
        """Whether there are tensors of this space (see `features`)."""
        return {"method": "features", "penultimate": "features"}.get(space, space) in self.tensors


class Network(Protocol):
    """What the pass needs of a trained method."""

    def eval(self) -> Any: ...

    def extract(self, images: Tensor) -> dict[str, Tensor]: ...


def extract(
    network: Network,
    loader: EvalLoader,
    name: str,
    precision: Precision = "32-true",
    change: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Run the network once over `loader` in eval mode: what it gives and the labels, on the CPU, a batch at a time.

    Args:
        name: of the set, for the progress bar.
        precision: "bf16-mixed" runs the network in bfloat16 and keeps what it gives so, at half the size.
        change: what is done to each batch of images before (see `perturbed`).
    """
    network.eval()
    for batch in track(loader, f"extract {name}", len(loader)):
        images = batch.images if change is None else change(batch.images)
        yield {**outputs_of(network, images, precision), "labels": batch.labels.cpu()}


def outputs_of(network: Network, images: Tensor, precision: Precision) -> dict[str, Tensor]:
    """What a network in eval mode gives for a batch, on the CPU; in bfloat16 where it runs in that."""
    kept = torch.float32 if precision == "32-true" else torch.bfloat16
    reduced = torch.autocast(images.device.type, torch.bfloat16, enabled=kept is torch.bfloat16)
    with torch.inference_mode(), reduced:
        return {key: value.to(kept).cpu() for key, value in network.extract(images).items()}


def perturbed(
    network: Network, images: Tensor, objective: Callable[[dict[str, Tensor]], Tensor], epsilon: float, std: Tensor
) -> Tensor:
    """x + epsilon sign(d objective / dx) / std: a step of `epsilon` in pixels of 0..1 that raises the objective.

    Args:
        images: normalised [B, 3, H, W].
        objective: [B] from the network's outputs; each image's depends on that image alone.
        std: deviation of each channel [1, 3, 1, 1], by which the images were divided.
    """
    network.eval()
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(network.extract(x)).sum(), x)
    return images + epsilon * gradient.sign() / std.to(images.device)


def feature_key(weights: str, images: list[Any], preparation: dict[str, Any]) -> str:
    """Twelve digits naming features by what they depend on.

    Args:
        weights: digest of the network's.
        images: what identifies the images: description of the set, split, names and sizes of its files.
        preparation: chain, sizes, normalisation, precision, and the change that a detector asks for.
    """
    text = json.dumps([weights, images, preparation], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save_features(
    path: Path, batches: Iterable[dict[str, Tensor]], rows: int, about: dict[str, str] | None = None
) -> None:
    """Write a safetensors file of `rows` rows batch by batch: memory holds one batch, however many there are.

    Args:
        about: words for the file's header.

    Raises:
        ValueError: the batches don't add up to `rows`.
    """
    stream = iter(batches)
    first = next(stream)
    header: dict[str, Any] = {"__metadata__": about} if about else {}
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
            raise ValueError(f"{path}: {written} rows were extracted; expected {rows}")


def _write_rows(file: BinaryIO, base: int, row: int, values: Tensor) -> None:
    width = values.element_size() * values[0].numel()
    file.seek(base + row * width)
    # NumPy has no bfloat16: its bits are written as they are.
    file.write(values.contiguous().view(torch.uint8).numpy().tobytes())


def features_path(run_dir: Path, name: str, key: str, change: str = "") -> Path:
    """Where the features of a set lie; those of changed images in a folder of the detector's name."""
    return run_dir / "features" / change.partition(" ")[0] / f"{short_name(name)}-{key}.safetensors"


def load_features(path: Path) -> Extracted:
    """Read a feature file (memory-mapped)."""
    return Extracted(load_file(path), path.stem.rpartition("-")[2])


def about(path: Path) -> dict[str, str]:
    """The words in a feature file's header."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}
