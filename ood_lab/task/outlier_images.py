"""The outlier images of a finished run as its network sees them, before and after their change: for pictures."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ood_lab.evaluation.frechet import frechet_distance
from ood_lab.image_source import ImageSource
from ood_lab.loss.energy import energy
from ood_lab.method.base import Method
from ood_lab.random import generator
from ood_lab.task.build import build_data
from ood_lab.task.features import trained_method
from ood_lab.task.run_tensors import RunTensors
from ood_lab.training.datamodule import DataModule

IMAGES = 512  # whose energies are taken
SHOWN = 8
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)  # times the change of training
CHUNK = 128


@dataclass(frozen=True)
class OutlierImages(RunTensors):
    """Some auxiliary or made images, changed as in training, with their energies, beside those of ID test images.

    - "energy/id", "energy/before", "energy/after" [n]: of the network in evaluation mode.
    - "pictures" [E, k, S, S, 3] uint8 and "energies" [E, k] of the first images, "strengths" [E]: how much changed.
    - "named" and "asked" [n]: the class that the network sees before the change, and the image's own (-1: none).
    - "distance", "distance/id": of penultimate features from those of ID training images (`frechet_distance`), of the
      images before the change and of ID test images.
    """

    name: ClassVar = "outlier_images"

    def measured(self) -> dict[str, NDArray[np.generic]]:
        method = trained_method(self.experiment).eval()
        return _measured(method, build_data(self.experiment, method.views), self.experiment.seed)


def _measured(method: Method, data: DataModule, seed: int) -> dict[str, NDArray[np.generic]]:
    images, labels = _outliers(data, seed) if method.image_source is None else _made(method.image_source, data, seed)
    own, own_labels = _id_images(data, len(images), "train")
    test, _ = _id_images(data, len(images), "test")
    draw = generator(seed, "perturb", "after training", device=method.device)
    changed = _changed(method, images, own, own_labels, draw)
    features, before = _outputs(method, images)
    (test_features, of_test), (train_features, _) = _outputs(method, test), _outputs(method, own)
    _, after = _outputs(method, changed)
    found = {
        "energy/id": energy(of_test), "energy/before": energy(before), "energy/after": energy(after),
        "named": before.argmax(1), "asked": labels[: len(images)],
        "distance": torch.tensor([frechet_distance(features, train_features)]),
        "distance/id": torch.tensor([frechet_distance(test_features, train_features)]),
    }  # fmt: skip
    shown = images[:SHOWN], own[:SHOWN], own_labels[:SHOWN]
    strengths, pictures, energies = [], [], []
    for strength, pixels in _strengths(method, *shown, seed):
        strengths.append(strength)
        pictures.append(_as_bytes(pixels, data))
        energies.append(energy(_outputs(method, pixels)[1]))
    found |= {"strengths": torch.tensor(strengths), "energies": torch.stack(energies)}
    return {name: values.cpu().numpy() for name, values in found.items()} | {"pictures": np.stack(pictures)}


def _outliers(data: DataModule, seed: int) -> tuple[Tensor, Tensor]:
    """Auxiliary images as training serves them, without augmentation, and their classes."""
    auxiliary = data.auxiliary_images
    assert auxiliary is not None
    assert data.auxiliary is not None
    rows = torch.randperm(auxiliary.count, generator=generator(seed, "outlier images"))[:IMAGES]
    pixels = torch.cat([data.as_outliers(part.to(data.device)) for part in auxiliary.plain(rows, CHUNK)])
    labels = torch.from_numpy(data.auxiliary_labels)
    return pixels, labels[rows]


def _made(source: ImageSource, data: DataModule, seed: int) -> tuple[Tensor, Tensor]:
    """Images of a source that has learned beside the classifier, by its running statistics; they have no classes."""
    draw = generator(seed, "outlier images", device=source.device)
    side = data.reading.side
    return source.make(IMAGES, (side, side), draw), torch.full((IMAGES,), -1)


def _id_images(data: DataModule, count: int, split: str) -> tuple[Tensor, Tensor]:
    """Some ID images, without augmentation, and their classes: evenly spread over the split."""
    images = data.evaluation_sets[split]
    rows = np.linspace(0, len(images.listing) - 1, min(count, len(images.listing))).astype(np.int64)
    opened = data.reading.open(images.listing.take(rows), f"{images.name} for pictures", images.chain)
    pixels = torch.cat([data.normalise(part.to(data.device)) for part in opened.chunks(CHUNK)])
    return pixels, torch.from_numpy(images.listing.labels[rows]).to(data.device)


def _changed(method: Method, images: Tensor, own: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
    """The images as the method changes them, a batch at a time."""
    parts = zip(images.split(CHUNK), own.split(CHUNK), labels.split(CHUNK), strict=False)
    return torch.cat([method.changed(part, beside, of, draw).images for part, beside, of in parts])


def _strengths(
    method: Method, images: Tensor, own: Tensor, labels: Tensor, seed: int
) -> Iterator[tuple[float, Tensor]]:
    """The images under growing changes, where the change has a strength; else before and after it."""
    change = method.parts.perturbation
    if change is None:
        yield 0.0, images
        return
    name = change.strength
    for factor in STRENGTHS if name else (0.0, 1.0):
        varied = copy.copy(change)
        if name:
            setattr(varied, name, factor * getattr(change, name))
        draw = generator(seed, "perturb", "pictures", device=method.device)
        shown = method.changed(images, own, labels, draw, varied).images if factor else images
        yield (factor * float(getattr(change, name)) if name else factor), shown


@torch.no_grad()
def _outputs(method: Method, images: Tensor) -> tuple[Tensor, Tensor]:
    """Penultimate features and class logits in evaluation mode."""
    method.eval()
    found = [method.extract(part) for part in images.split(CHUNK)]
    return torch.cat([f["features"] for f in found]).cpu(), torch.cat([f["logits"] for f in found]).float().cpu()


def _as_bytes(images: Tensor, data: DataModule) -> NDArray[np.uint8]:
    """uint8 [k, S, S, 3], cut where a change has left the range of pixels."""
    if data.outlier_space == "normalised":
        mean, std = (value.to(images.device) for value in (data.normalise.mean, data.normalise.std))
        images = images * std + mean
    pixels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
