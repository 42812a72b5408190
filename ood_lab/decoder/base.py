"""What decodes outliers of a latent space into images. Shape letters: n images, D numbers, S side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.affects import NOTHING
from ood_lab.config.ranges import PositiveInt
from ood_lab.errors import NotDefinedError, RunError
from ood_lab.producer.base import Producer
from ood_lab.reader.shards import load_manifest, rows_of
from ood_lab.text.anchors import load_anchors

Norm = Literal["anchor", "unit", "as_is"]


class Decoder(Producer):
    """Image number i is that of outlier i modulo their count, from noise of its own; a subclass defines `decode`.

    Outliers take turns by class, so that all classes have as many images where all have as many outliers.

    Args:
        batch: images that are decoded together.
        norm: of the outliers: "anchor": that of their class's anchor, as in DreamOOD's code (BOOD says nothing);
            "unit"; or "as_is".
        needs: under "anchors" and "outliers" the runs that make them.

    Raises:
        RunError: outliers and anchors of different dimensions or classes.
    """

    inherits: ClassVar[tuple[str, ...]] = ("dataset",)
    passes: ClassVar[tuple[str, ...]] = ("anchors", "outliers", "backbone", "protocol")

    def __init__(
        self, *, batch: PositiveInt, norm: Norm, needs: Annotated[dict[str, Any], NOTHING], **options: Any
    ) -> None:
        super().__init__(**options)
        self.batch = batch
        self.anchors = load_anchors(needs["anchors"])
        self._names, outliers, self.labels = _load_outliers(needs["outliers"])
        if outliers.shape[1] != self.anchors.shape[1] or len(self._names) != len(self.anchors):
            raise RunError(
                f"{needs['outliers']} holds outliers of {outliers.shape[1]} numbers and {len(self._names)} classes, "
                f"{needs['anchors']} {len(self.anchors)} anchors of {self.anchors.shape[1]}; both must be of one set "
                "of anchors"
            )
        self.norm = norm
        self.outliers = self.with_norm(outliers, self.labels)
        self.device = torch.device("cpu")

    @property
    def classes(self) -> tuple[str, ...]:
        return self._names

    def with_norm(self, points_nD: Tensor, labels_n: Tensor) -> Tensor:
        """Points of these classes with the norm that `decode` takes."""
        return with_norm(points_nD, self.anchors[labels_n], self.norm)

    def decode(self, outliers_nD: Tensor, labels_n: Tensor, start: int) -> Tensor:
        """Images uint8 [n, 3, S, S] of outliers, the first of them image number `start`."""
        raise NotDefinedError(self, "decode")

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        made = []
        numbers = torch.arange(start, stop) % len(self.outliers)
        for first in range(0, len(numbers), self.batch):
            rows = numbers[first : first + self.batch]
            made.append(self.decode(self.outliers[rows], self.labels[rows], start + first).cpu())
        images = torch.cat(made).permute(0, 2, 3, 1).contiguous().numpy()
        return {"images": images, "labels": self.labels[numbers].numpy(), "outlier": numbers.numpy()}


def with_norm(outliers_nD: Tensor, anchors_nD: Tensor, norm: Norm) -> Tensor:
    """Outliers with the norm of the anchors beside them, of unit norm, or as they are."""
    if norm == "as_is":
        return outliers_nD
    unit = F.normalize(outliers_nD, dim=1)
    return unit * anchors_nD.norm(dim=1, keepdim=True) if norm == "anchor" else unit


def _load_outliers(folder: Path) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """The classes' names, the outliers [N, D] and their classes [N] of a set that `task=outliers` made."""
    classes = load_manifest(folder).classes
    outliers, labels = (rows_of(folder, name).whole for name in ("outliers", "labels"))
    if classes is None:
        raise RunError(f"{folder} names no classes; make the outliers with task=outliers")
    return classes, torch.from_numpy(outliers), torch.from_numpy(labels)
