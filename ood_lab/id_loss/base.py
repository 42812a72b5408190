"""What contrastive terms share: one temperature."""

from __future__ import annotations

from typing import Any, ClassVar

from ood_lab.config.ranges import PositiveFloat
from ood_lab.parts import Dimensions, Term


class Contrastive(Term):
    """Compares the rows of two views with one another.

    Args:
        temperature: tau.
    """

    views: ClassVar = 2

    def __init__(self, dims: Dimensions, *, temperature: PositiveFloat, **schedule: Any) -> None:
        super().__init__(dims, **schedule)
        self.temperature = temperature
