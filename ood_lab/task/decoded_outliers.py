"""What a run's decoder makes of outliers and of the embeddings that they come from: for pictures.

Shape letters: W embeddings that are walked, C classes shown, K columns, S side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ood_lab.config.experiment import Experiment
from ood_lab.decoder.base import Decoder
from ood_lab.outliers.base import Outliers
from ood_lab.outliers.boundary import Boundary
from ood_lab.progress import Meter
from ood_lab.reader.shards import rows_of
from ood_lab.task.build import build, build_reading, device
from ood_lab.task.run_tensors import RunTensors
from ood_lab.task.synthesize import build_producer

CLASSES, WALKED, MOMENTS = 10, 3, 5
FURTHER = (0, 1, 2, 3, 4, 5)  # c
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of alpha


@dataclass(frozen=True)
class DecodedOutliers(RunTensors):
    """Pictures, uint8; a column of the first three, and a row of a grid, is from one noise.

    - "images" [C, S, S, 3]: training images of as many classes; "embeddings" and "outliers": their embeddings, and
      outliers, decoded: those that come from these, where that is known (Boundary), else of the same class.
    - Of outliers across a boundary (Boundary) W embeddings along a value, by name "steps" (to the boundary), "further"
      (behind it) and "alpha": "<name>/pictures" [K, W, S, S, 3], "<name>/values" [K, W], and what the encoder's
      classifier says, "<name>/own" [K, W] of the embedding's class, "<name>/other" [K, W] the highest of the others.
    """

    name: ClassVar = "decoded_outliers"

    def measured(self) -> dict[str, NDArray[np.generic]]:
        images = self.experiment.prerequisites["auxiliary.images"]
        below = images.prerequisites["decoder.outliers"]
        decoder, outliers = build_producer(images), build_producer(below)
        assert isinstance(decoder, Decoder)
        assert isinstance(outliers, Outliers)
        decoder.to(device(images))
        stored = _Stored.of(below, outliers)
        found = _sheet(decoder, outliers, stored, below.prerequisites["outliers.encoder"])
        if isinstance(outliers, Boundary) and outliers.displacement == "adversarial":
            for name, columns in _walks(outliers, stored).items():
                grid = _grid(decoder, outliers, columns, stored.labels[:WALKED], name)
                found |= {f"{name}/{what}": values for what, values in grid.items()}
        return found


@dataclass(frozen=True)
class _Stored:
    """The first outliers of a set: of so many classes one each.

    Args:
        points: [n, D].
        labels: their classes [n].
        origins: the embeddings that they come from, where that is stored; else the first of the class [n].
        steps: to the boundary, where there is one [n].
    """

    points: Tensor
    labels: Tensor
    origins: Tensor
    steps: Tensor | None

    @staticmethod
    def of(experiment: Experiment, outliers: Outliers) -> _Stored:
        def first(name: str) -> Tensor:
            return torch.from_numpy(np.array(rows_of(experiment.product, name)[:CLASSES]))

        points, labels = first("outliers"), first("labels")
        count = min(len(points), int(labels.unique().numel()))  # classes take turns
        if isinstance(outliers, Boundary):
            origins, steps = first("origin"), first("steps")[:count]
        else:
            origins = torch.stack([(outliers.space.labels == label).nonzero()[0, 0] for label in labels])
            steps = None
        return _Stored(points[:count], labels[:count], origins[:count], steps)


def _sheet(
    decoder: Decoder, outliers: Outliers, stored: _Stored, encoder: Experiment
) -> dict[str, NDArray[np.generic]]:
    """Images, and embeddings and outliers decoded."""
    embeddings = outliers.embeddings if isinstance(outliers, Boundary) else outliers.space.embeddings
    listing = build(encoder.dataset).listing("train").take(stored.origins.numpy())
    opened = build_reading(encoder).open(listing, f"{encoder.dataset.name} for pictures")
    return {
        "images": np.concatenate([_rows_last(part) for part in opened.chunks(len(stored.labels))]),
        "embeddings": _decoded(decoder, embeddings[stored.origins], stored.labels),
        "outliers": _decoded(decoder, stored.points, stored.labels),
    }


# For each column a value of each row, and the points.
Columns = list[tuple[Tensor, Tensor]]


def _walks(outliers: Boundary, stored: _Stored) -> dict[str, Columns]:
    """The points along each value."""
    assert stored.steps is not None
    labels, steps = stored.labels[:WALKED], stored.steps[:WALKED]
    h = outliers.embeddings[stored.origins[:WALKED]]

    def to(moments: Tensor) -> Tensor:
        each = zip(h.split(1), labels.split(1), moments.tolist(), strict=True)
        return torch.cat([outliers.walked(point, of, 0, max_steps=moment) for point, of, moment in each])

    def by(factor: float) -> Tensor:
        reach = math.ceil(outliers.max_steps / min(1.0, factor))  # smaller steps take more of them
        return outliers.walked(h, labels, outliers.further_steps, alpha=outliers.alpha * factor, max_steps=reach)

    moments = [(steps * number / (MOMENTS - 1)).round().long() for number in range(MOMENTS)]
    return {
        "steps": [(moment, to(moment)) for moment in moments],
        "further": [(torch.full((len(h),), c), outliers.walked(h, labels, c)) for c in FURTHER],
        "alpha": [(torch.full((len(h),), outliers.alpha * factor), by(factor)) for factor in FACTORS],
    }


def _grid(
    decoder: Decoder, outliers: Boundary, columns: Columns, labels: Tensor, name: str
) -> dict[str, NDArray[np.generic]]:
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
