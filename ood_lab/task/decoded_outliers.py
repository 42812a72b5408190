"""What a run's decoder makes of outliers and of the embeddings that they come from: for pictures.

Shape letters: W embeddings that are walked, C classes shown, K columns, S side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from ood_lab.config.experiment import Experiment
from ood_lab.decoder.base import Decoder
from ood_lab.files.artifact import Artifact
from ood_lab.files.storage import write_atomically
from ood_lab.outliers.base import Outliers
from ood_lab.outliers.boundary import Boundary
from ood_lab.progress import Meter
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import build, build_reading, device
from ood_lab.task.synthesize import build_producer

CLASSES, WALKED, MOMENTS = 10, 3, 5
FURTHER = (0, 1, 2, 3, 4, 5)  # c
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of alpha


@dataclass(frozen=True)
class DecodedOutliers(Artifact):
    """Pictures, uint8, each column of a grid from the same noise.

    - "images" [C, S, S, 3]: training images of as many classes; "embeddings" and "outliers": their embeddings, and the
      outliers that come from them, decoded.
    - Of outliers across a boundary (Boundary) W embeddings along a value, by name "steps" (to the boundary), "further"
      (behind it) and "alpha": "<name>/pictures" [K, W, S, S, 3], "<name>/values" [K, W], and what the encoder's
      classifier says, "<name>/own" [K, W] of the embedding's class, "<name>/other" [K, W] the highest of the others.
    """

    experiment: Experiment

    @property
    def key(self) -> str:
        return self.experiment.run_id

    @property
    def path(self) -> Path:
        return RunFolder(self.experiment.run_dir).path / "features" / "decoded_outliers.safetensors"

    def load(self) -> dict[str, NDArray[np.generic]]:
        """What is stored, made first where nothing is."""
        return self.read(load_file, (SafetensorError,))

    def make(self) -> None:
        images = self.experiment.prerequisites["auxiliary.images"]
        below = images.prerequisites["decoder.outliers"]
        decoder, outliers = build_producer(images), build_producer(below)
        assert isinstance(decoder, Decoder)
        assert isinstance(outliers, Outliers)
        decoder.to(device(images))
        found = _sheet(decoder, outliers, below.prerequisites["outliers.encoder"])
        if isinstance(outliers, Boundary):
            for name, columns in _walks(outliers).items():
                found |= {f"{name}/{what}": values for what, values in _grid(decoder, outliers, columns, name).items()}
        write_atomically(self.path, save({name: np.ascontiguousarray(values) for name, values in found.items()}))


def _sheet(decoder: Decoder, outliers: Outliers, encoder: Experiment) -> dict[str, NDArray[np.generic]]:
    """Images, and their embeddings and outliers decoded: of the first outliers, which are of one class each."""
    shown = outliers.found.labels[:CLASSES]
    count = min(CLASSES, int(shown.unique().numel()))
    labels, origins = outliers.found.labels[:count], _origins(outliers)[:count]
    embeddings = outliers.embeddings if isinstance(outliers, Boundary) else outliers.space.embeddings
    listing = build(encoder.dataset).listing("train")
    opened = build_reading(encoder).open(listing.take(origins.numpy()), f"{encoder.dataset.name} for pictures")
    images = np.concatenate([_rows_last(part) for part in opened.chunks(count)])
    return {
        "images": images,
        "embeddings": _decoded(decoder, embeddings[origins], labels),
        "outliers": _decoded(decoder, outliers.found.points[:count], labels),
    }


def _origins(outliers: Outliers) -> Tensor:
    """The embedding that each outlier comes from; where it is not known the first of its class."""
    if "origin" in outliers.found.about:
        return outliers.found.about["origin"]
    firsts = {int(c): int((outliers.space.labels == c).nonzero()[0]) for c in outliers.found.labels.unique()}
    return torch.tensor([firsts[int(c)] for c in outliers.found.labels])


# For each column a value of each row, and the points.
Columns = list[tuple[Tensor, Tensor]]


def _walks(outliers: Boundary) -> dict[str, Columns]:
    """The points along each value."""
    found = outliers.found
    rows, labels = found.about["origin"][:WALKED], found.labels[:WALKED]
    h, steps = outliers.embeddings[rows], found.about["steps"][:WALKED]

    def to(moments: Tensor) -> Tensor:
        each = zip(h.split(1), labels.split(1), moments.tolist(), strict=True)
        return torch.cat([outliers.walked(point, of, 0, max_steps=moment) for point, of, moment in each])

    moments = [(steps * number / (MOMENTS - 1)).round().long() for number in range(MOMENTS)]
    alphas, c = [outliers.alpha * factor for factor in FACTORS], outliers.further_steps
    return {
        "steps": [(moment, to(moment)) for moment in moments],
        "further": [(torch.full((len(h),), c), outliers.walked(h, labels, c)) for c in FURTHER],
        "alpha": [(torch.full((len(h),), alpha), outliers.walked(h, labels, c, alpha=alpha)) for alpha in alphas],
    }


def _grid(decoder: Decoder, outliers: Boundary, columns: Columns, name: str) -> Mapping[str, NDArray[np.generic]]:
    labels = outliers.found.labels[:WALKED]
    pictures, values, own, other = [], [], [], []
    with Meter(f"decode along {name}", len(columns)) as meter:
        for value, points in columns:
            probabilities = outliers.classifier.logits(points)[0].softmax(1)
            own.append(probabilities.gather(1, labels[:, None])[:, 0])
            other.append(probabilities.scatter(1, labels[:, None], 0.0).amax(1))
            values.append(value.float())
            pictures.append(_decoded(decoder, points, labels))
            meter.advance()
    stacked = {key: torch.stack(rows).numpy() for key, rows in {"values": values, "own": own, "other": other}.items()}
    return {"pictures": np.stack(pictures), **stacked}


def _decoded(decoder: Decoder, points_nD: Tensor, labels_n: Tensor) -> NDArray[np.uint8]:
    """Pictures of points, row i always from the noise of image i."""
    points, made = decoder.with_norm(points_nD, labels_n), []
    for first in range(0, len(points), decoder.batch):
        rows = slice(first, first + decoder.batch)
        made.append(_rows_last(decoder.decode(points[rows], labels_n[rows], first)))
    return np.concatenate(made)


def _rows_last(images: Tensor) -> NDArray[np.uint8]:
    return np.asarray(images.permute(0, 2, 3, 1).cpu().numpy())
