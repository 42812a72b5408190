"""What makes a set of images, or a tensor: items by their numbers, each a function of its number and the seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from ood_lab.config.ranges import NonNegativeInt, PositiveInt


class Producer:
    """Makes the items of a set; a subclass defines `produce`.

    Args:
        count: items.
        shard_items: how many are made at a time and lie in one file.
        seed: of the draws; the set does not depend on a run's seed.
    """

    # Groups of the experiment that depends on the set which the producer depends on, too.
    inherits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, count: PositiveInt, shard_items: PositiveInt, seed: NonNegativeInt) -> None:
        self.count, self.shard_items, self.seed = count, shard_items, seed

    def to(self, device: torch.device) -> None:
        """Where a network works that the producer has, if any."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The name of each label; None where items have none."""
        return None

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        """The items start .. stop - 1, the same however they are asked for: tensors whose rows are the items.

        Images are "images", uint8 [n, S, S, 3], with "labels", int64 [n], where there are classes.
        """
        raise NotImplementedError(f"{type(self).__name__} must define produce()")
