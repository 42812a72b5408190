"""CIDER's compactness and dispersion around prototypes (Ming et al. 2023; HamOS, Eq. 22)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from ood_lab.config.ranges import Fraction, NonNegativeFloat, PositiveFloat
from ood_lab.loss.cider import compactness, dispersion
from ood_lab.memory import Prototypes
from ood_lab.parts import Dimensions, Memories, Term, View


class CIDER(Term):
    """w_compactness L_comp + w_dispersion L_disp on two views.

    Dispersion trains the network through the batch's share of the moving prototypes; compactness takes them detached
    (as the public codes do).

    Args:
        temperature: tau.
        prototype_momentum: m of the moving average, applied row by row.
        w_compactness, w_dispersion: HamOS's text has 0.5 and 1; its release 1.43 and 0.5.
    """

    reads: ClassVar = ("z", "prototypes")
    views: ClassVar = 2
    least_classes: ClassVar = 2
    scalars: ClassVar = ("compactness", "dispersion")

    def __init__(
        self,
        dims: Dimensions,
        *,
        temperature: PositiveFloat,
        prototype_momentum: Fraction,
        w_compactness: NonNegativeFloat,
        w_dispersion: NonNegativeFloat,
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.temperature, self.momentum = temperature, prototype_momentum
        self.w_compactness, self.w_dispersion = w_compactness, w_dispersion

    def keeps(self) -> Memories:
        return {"prototypes": partial(Prototypes, momentum=self.momentum)}

    def weights(self) -> dict[str, float]:
        return {"compactness": self.weight * self.w_compactness, "dispersion": self.weight * self.w_dispersion}

    def losses(self, view: View) -> dict[str, Tensor]:
        prototypes = view.kept["prototypes"]
        return {
            "compactness": compactness(view.id.z, view.labels, prototypes.detach(), self.temperature),
            "dispersion": dispersion(prototypes, self.temperature),
        }
