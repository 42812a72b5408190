"""What a detector is to the rest of the program."""

from __future__ import annotations

from typing import Literal, Self

from torch import Tensor

from ood_lab.types import FeatureSet, LinearHead

Space = Literal["method", "penultimate", "projection"]


class Scorer:
    """Fitted once on ID training features, it gives each row of any features one score; higher = more OOD.

    A scorer never writes into what it is given. `space` says which features the evaluator hands over.
    """

    space: Space = "penultimate"

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        """Take what the detector needs from the training features; by default, nothing."""
        return self

    def score(self, data: FeatureSet) -> Tensor:
        """Scores [N]."""
        raise NotImplementedError(f"{type(self).__name__} must define score()")


class NotFittedError(RuntimeError):
    """score() was called before fit()."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(f"{type(scorer).__name__} is not fitted; call fit(train_features, head=head) first")
