"""Images of a BigGAN that a run trained, or whose weights were released."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from numpy.typing import NDArray

from ood_lab.biggan.sampling import Statistics, block, load_generator
from ood_lab.config.affects import NOTHING
from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.producer.base import Producer


class BigGAN(Producer):
    """Images of all classes in turn.

    Args:
        z_std: standard deviation of the noise, which training draws with 1. AOE and its source write sigma^2 = 2; the
            code that they sampled with takes the number as the standard deviation.
        bn_mode: see `ood_lab.biggan.sampling.block`; which one made the released images is not known.
        batch: images that pass the generator together.
        weights: a file of released weights, instead of a generator that is trained first.
        key: where the generator lies in that file, where it holds several networks.
        needs: under "generator", the run that trains one.
    """

    inherits: ClassVar[tuple[str, ...]] = ("dataset",)
    files: ClassVar[tuple[str, ...]] = ("weights",)
    instead_of_needs: ClassVar[str] = "weights"

    def __init__(
        self,
        *,
        z_std: PositiveFloat,
        bn_mode: Statistics,
        batch: PositiveInt,
        weights: str | None,
        key: str | None,
        needs: Annotated[dict[str, Any], NOTHING],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.z_std, self.bn_mode, self.batch = z_std, bn_mode, batch
        path = Path(weights) if weights is not None else needs["generator"]
        self.network, self._names = load_generator(path, key)

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._names or tuple(map(str, range(self.network.classes)))

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        numbers = range(start // self.batch, -(-stop // self.batch))
        made = [
            block(self.network, n, self.batch, seed=self.seed, z_std=self.z_std, statistics=self.bn_mode)
            for n in numbers
        ]
        first = numbers.start * self.batch
        taken = torch.cat(made)[start - first : stop - first]
        labels = torch.arange(start, stop) % self.network.classes
        return {"images": taken.permute(0, 2, 3, 1).contiguous().numpy(), "labels": labels.numpy()}
