"""What the readings of HamOS's OOD-discernment loss share."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from ood_lab.config.ranges import Fraction, PositiveFloat
from ood_lab.memory import Prototypes
from ood_lab.parts import Dimensions, Memories, Term


class Discernment(Term):
    """A term that compares points on the sphere with prototypes.

    Args:
        temperature: tau.
        prototype_momentum: of the prototypes' moving average; where an ID term keeps prototypes, the same ones.
    """

    reads: ClassVar[tuple[str, ...]] = ("prototypes",)
    reads_outliers: ClassVar[tuple[str, ...]] = ("z",)

    def __init__(
        self, dims: Dimensions, *, temperature: PositiveFloat, prototype_momentum: Fraction, **schedule: Any
    ) -> None:
        super().__init__(dims, **schedule)
        self.temperature, self.momentum = temperature, prototype_momentum

    def keeps(self) -> Memories:
        return {"prototypes": partial(Prototypes, momentum=self.momentum)}
