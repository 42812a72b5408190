"""What finds outliers among the embeddings of an encoder. Shape letters: N embeddings, D numbers, C classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.affects import NOTHING
from ood_lab.config.ranges import PositiveInt
from ood_lab.errors import NotDefinedError
from ood_lab.producer.base import SetMaker


@dataclass(frozen=True)
class LatentSpace:
    """The embeddings of the ID training images by an encoder that is aligned with anchors.

    Args:
        embeddings: h [N, D], as the encoder gives them.
        labels: their classes [N].
        anchors: Gamma [C, D].
        unit: whether the encoder's logits are cosines.
        temperature: of its logits.
        classes: the names.
    """

    embeddings: Tensor
    labels: Tensor
    anchors: Tensor
    unit: bool
    temperature: float
    classes: tuple[str, ...]

    @property
    def compared(self) -> Tensor:
        """The anchors as the encoder's logits take them [C, D]."""
        return F.normalize(self.anchors, dim=1) if self.unit else self.anchors


@dataclass(frozen=True)
class Found:
    """Outliers, those of all classes in turn.

    Args:
        points: float32 [n, D].
        labels: the class that each comes from [n].
        about: further numbers of each, by name.
    """

    points: Tensor
    labels: Tensor
    about: Mapping[str, Tensor]


class Outliers(SetMaker):
    """Outliers of a latent space; a subclass defines `find`.

    A shard holds "outliers", float32 [n, D], "labels", int64 [n], and what `find` says of each.

    Args:
        space: in which they are found.
        shard_items: how many lie in one file.
        needs: under "encoder" the run that trains one.
    """

    inherits: ClassVar[tuple[str, ...]] = ("dataset",)
    passes: ClassVar[tuple[str, ...]] = ("anchors", "backbone", "protocol")
    reads_latent: ClassVar[bool] = True

    def __init__(
        self, space: LatentSpace, *, shard_items: PositiveInt, needs: Annotated[dict[str, Any], NOTHING], **options: Any
    ) -> None:
        super().__init__(**options)
        self.space, self.shard_items = space, shard_items

    def find(self) -> Found:
        """The outliers, a function of the space and the options alone.

        Raises:
            RunError: the space gives none.
        """
        raise NotDefinedError(self, "find")

    @cached_property
    def found(self) -> Found:
        """The outliers."""
        return self.find()

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.found.points)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.space.classes

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        found = self.found
        tensors = {"outliers": found.points, "labels": found.labels, **found.about}
        return {name: np.ascontiguousarray(values[start:stop].numpy()) for name, values in tensors.items()}


def in_turn(labels_N: Tensor) -> Tensor:
    """The order in which rows of all classes take turns: the first of each class, the second of each, and so on."""
    order = labels_N.argsort(stable=True)
    counts = labels_N[order].bincount()
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(labels_N)
    place[order] = torch.arange(len(labels_N)) - starts.repeat_interleave(counts)
    return (place * (int(labels_N.max()) + 1) + labels_N).argsort()
