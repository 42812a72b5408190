"""What makes a set of images, or a tensor: items by their numbers, each a function of its number and the seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from ood_lab.config.ranges import NonNegativeInt, PositiveInt
from ood_lab.errors import NotDefinedError


class SetMaker:
    """Makes the items of a set; a subclass defines `produce`, and says how many there are.

    Args:
        seed: of the draws; the set does not depend on a run's seed.
    """

    # Groups of the experiment that depends on the set which its maker depends on, too.
    inherits: ClassVar[tuple[str, ...]] = ()
    # Groups that runs which the maker depends on depend on; their ids tell what was chosen.
    passes: ClassVar[tuple[str, ...]] = ()
    # Whether it is given the names of the ID classes.
    reads_classes: ClassVar[bool] = False
    # Whether it is given the embeddings of an encoder that it needs.
    reads_latent: ClassVar[bool] = False
    # What every result of a run that depends on the set must say, if it is not what the papers have.
    caveat: ClassVar[str] = ""
    # Options that name a pretrained model, which must be on this disk or to be had.
    models: ClassVar[tuple[str, ...]] = ()

    count: int  # items
    shard_items: int  # how many are made at a time and lie in one file

    def __init__(self, *, seed: NonNegativeInt) -> None:
        self.seed = seed

    def to(self, device: torch.device) -> None:
        """Where a network works that the maker has, if any."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The name of each label; None where items have none."""
        return None

    @property
    def about(self) -> dict[str, Any]:
        """What the manifest says besides how the set was made."""
        return {}

    @property
    def note(self) -> str:
        """What to know before the set is made; empty for nothing."""
        return ""

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        """The items start .. stop - 1, the same however they are asked for: tensors whose rows are the items.

        Images are "images", uint8 [n, S, S, 3], with "labels", int64 [n], where there are classes.
        """
        raise NotDefinedError(self, "produce")


class Producer(SetMaker):
    """Makes as many items as are asked for.

    Args:
        count: items.
        shard_items: how many are made at a time and lie in one file.
        seed: see `SetMaker`.
    """

    def __init__(self, *, count: PositiveInt, shard_items: PositiveInt, seed: NonNegativeInt) -> None:
        super().__init__(seed=seed)
        self.count, self.shard_items = count, shard_items
