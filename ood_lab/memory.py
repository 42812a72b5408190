"""What is kept across steps: banks of recent rows of each class, and prototypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.loss.cider import class_counts, rank_within_class, update_prototypes
from ood_lab.loss.palm import move_prototypes
from ood_lab.parts import Dimensions, Memory


class Bank(Memory):
    """A ring of the `size` most recent rows of each class.

    While a class is not full, the HamOS release drops what exceeds the room in the batch that fills it; here the
    newest rows always win. Order within a class matters to nothing that reads the bank.
    """

    values: Tensor  # [C, N, D]
    written: Tensor  # [C], rows ever written

    def __init__(self, dims: Dimensions, size: int) -> None:
        super().__init__()
        width = dims.projection if self.space == "z" else dims.features
        self.register_buffer("values", torch.zeros(dims.classes, size, width))
        self.register_buffer("written", torch.zeros(dims.classes, dtype=torch.int64))
        self._written_C = np.zeros(dims.classes, dtype=np.int64)  # the same, on the host

    @property
    def ready(self) -> bool:
        """Whether every row of every class has been written."""
        return bool((self._written_C >= self.values.shape[1]).all())

    def offer(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray) -> Tensor:
        return self.values

    @torch.no_grad()
    def store(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray, offered: Tensor) -> None:
        size = self.values.shape[1]
        # In pieces of `size` rows no two rows have one place, so that nothing depends on the order of writing.
        for rows, labels in zip(rows_BD.split(size), labels_B.split(size), strict=True):
            counts = class_counts(labels, len(self.written))
            place = (self.written[labels] + rank_within_class(labels, counts)) % size
            self.values[labels, place] = rows.to(self.values.dtype)
            self.written += counts
        self._written_C += counts_C

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._written_C = self.written.cpu().numpy().copy()


class FeatureBank(Bank):
    """A bank of penultimate features, not normalised."""

    space: ClassVar[str] = "features"


class Prototypes(Memory):
    """One unit vector for each class, the moving average of its rows (see `update_prototypes`).

    They begin as class means of 100 training images a class without augmentation (CIDER takes the training set, the
    HamOS release its validation images). A step is offered the moved ones with their graph.
    """

    IMAGES = 100

    values: Tensor  # [C, D]
    begun: Tensor

    def __init__(self, dims: Dimensions, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("values", torch.zeros(dims.classes, dims.projection))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def begin(self, class_sums: Callable[[int], Tensor]) -> None:
        if not self.begun:
            self.values.copy_(F.normalize(class_sums(self.IMAGES), dim=1))
            self.begun.fill_(True)

    def offer(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray) -> Tensor:
        return update_prototypes(self.values, rows_BD, labels_B, self.momentum, int(counts_C.max()))

    def store(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray, offered: Tensor) -> None:
        self.values.copy_(offered.detach())


class Mixture(Memory):
    """Several prototypes for each class, moved by the rows assigned to them (PALM; see `move_prototypes`).

    They begin as random directions with positive coordinates, as in PALM's code. A step is offered those before it and
    the moved ones with their graph, [2, P, D]; prototype p belongs to class p mod C.
    """

    values: Tensor  # [P, D]

    def __init__(self, dims: Dimensions, per_class: int, momentum: float, epsilon: float, top_k: int) -> None:
        super().__init__()
        self.classes = dims.classes
        self.momentum, self.epsilon, self.top_k = momentum, epsilon, min(top_k, per_class)
        start = torch.rand(per_class * dims.classes, dims.projection)
        self.register_buffer("values", F.normalize(start, dim=1))

    def offer(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray) -> Tensor:
        moved = move_prototypes(
            self.values,
            rows_BD,
            labels_B,
            self.classes,
            momentum=self.momentum,
            epsilon=self.epsilon,
            top_k=self.top_k,
        )
        return torch.stack((self.values, moved))

    def store(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray, offered: Tensor) -> None:
        self.values.copy_(offered[1].detach())


class FeatureQueue(Memory):
    """A ring of the `size` most recent penultimate features, whatever their class."""

    space: ClassVar[str] = "features"

    values: Tensor  # [N, D]
    written: Tensor  # rows ever written

    def __init__(self, dims: Dimensions, size: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(size, dims.features))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))
        self._written = 0  # the same, on the host

    @property
    def ready(self) -> bool:
        """Whether every row has been written."""
        return self._written >= len(self.values)

    def offer(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray) -> Tensor:
        return self.values

    @torch.no_grad()
    def store(self, rows_BD: Tensor, labels_B: Tensor, counts_C: np.ndarray, offered: Tensor) -> None:
        size = len(self.values)
        rows = rows_BD[-size:]
        first = (self._written + len(rows_BD) - len(rows)) % size
        head = min(len(rows), size - first)
        self.values[first : first + head] = rows[:head].to(self.values.dtype)
        self.values[: len(rows) - head] = rows[head:].to(self.values.dtype)
        self._written += len(rows_BD)
        self.written += len(rows_BD)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._written = int(self.written)
