"""PALM: a mixture of prototypes for each class (Lu et al. 2024)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from ood_lab.config.ranges import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from ood_lab.loss.palm import likelihood, prototype_contrast
from ood_lab.memory import Mixture
from ood_lab.parts import Dimensions, Memories, Term, View


class PALM(Term):
    """w_likelihood L_mle + w_prototype_contrast L_contrast on two views.

    The contrast trains the network through the batch's share of the moving prototypes; the likelihood takes them
    detached. PALM's code has no factor tau / 0.07.

    Args:
        temperature: tau of the likelihood.
        contrast_temperature: of the contrast among prototypes.
        per_class: prototypes of each class; with one the contrast among them is 0.
        top_k: of a class's prototypes those that a row counts for; clipped to per_class.
        mixture_momentum: m of the moving average.
        epsilon: of Sinkhorn's assignments.
        w_likelihood, w_prototype_contrast: weights.
    """

    reads: ClassVar = ("mixture",)
    reads_whole: ClassVar = ("z",)
    memories: ClassVar = ("mixture",)
    views: ClassVar = 2
    scalars: ClassVar = ("likelihood", "prototype_contrast")

    def __init__(
        self,
        dims: Dimensions,
        *,
        temperature: PositiveFloat,
        contrast_temperature: PositiveFloat,
        per_class: PositiveInt,
        top_k: PositiveInt,
        mixture_momentum: Fraction,
        epsilon: PositiveFloat,
        w_likelihood: NonNegativeFloat,
        w_prototype_contrast: NonNegativeFloat,
        **schedule: Any,
    ) -> None:
        super().__init__(dims, **schedule)
        self.classes, self.per_class = dims.classes, per_class
        self.temperature, self.contrast_temperature = temperature, contrast_temperature
        self.momentum, self.epsilon, self.top_k = mixture_momentum, epsilon, min(top_k, per_class)
        self.w_likelihood, self.w_prototype_contrast = w_likelihood, w_prototype_contrast

    def keeps(self) -> Memories:
        make = partial(
            Mixture, per_class=self.per_class, momentum=self.momentum, epsilon=self.epsilon, top_k=self.top_k
        )
        return {"mixture": make}

    def weights(self) -> dict[str, float]:
        return {
            "likelihood": self.weight * self.w_likelihood,
            "prototype_contrast": self.weight * self.w_prototype_contrast,
        }

    def losses(self, view: View) -> dict[str, Tensor]:
        before, moved = view.kept["mixture"]
        whole = view.whole_batch
        # Assignments are those of the whole batch; each device takes the mean over its own rows.
        of_rows = likelihood(
            whole.rows.z,
            whole.labels,
            before,
            moved.detach(),
            self.classes,
            temperature=self.temperature,
            epsilon=self.epsilon,
            top_k=self.top_k,
        )
        return {
            "likelihood": of_rows[whole.own].mean(),
            "prototype_contrast": prototype_contrast(moved, self.classes, self.contrast_temperature),
        }
