"""A vector for each ID class, with which an encoder aligns its images and on which a diffusion model is conditioned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from ood_lab.errors import NotDefinedError
from ood_lab.producer.base import SetMaker
from ood_lab.text.words import words_of


class Anchors(SetMaker):
    """The anchors Gamma(y) of all classes (DreamOOD; BOOD, section 2); a subclass defines `embed`.

    Args:
        names: of the classes.
        words: by the name of a class the word that stands for it; of the others see `ood_lab.text.words`.
    """

    inherits: ClassVar[tuple[str, ...]] = ("dataset",)
    reads_classes: ClassVar[bool] = True

    def __init__(self, names: Sequence[str], *, words: dict[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.count = self.shard_items = len(names)
        self.names, self.words = tuple(names), words_of(names, words)

    def embed(self) -> Tensor:
        """The anchors [C, D] in float32."""
        raise NotDefinedError(self, "embed")

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def about(self) -> dict[str, Any]:
        return {"words": list(self.words)}

    def produce(self, start: int, stop: int) -> Mapping[str, NDArray[Any]]:
        return {"anchors": self.embed()[start:stop].contiguous().numpy()}
