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


class HeadScorer(Scorer):
    """A detector that passes changed penultimate features, or changed weights, through the classifier's head.

    `fit` keeps the head; a subclass that takes more from the training features calls this one first.
    """

    _head: LinearHead | None = None

    def fit(self, train: FeatureSet, head: LinearHead | None = None, val: FeatureSet | None = None) -> Self:
        """Keep the head.

        Raises:
            ValueError: there is none.
        """
        if head is None:
            raise ValueError(
                f"{type(self).__name__} needs the classifier's head; call fit(train, head=LinearHead(...))"
            )
        self._head = head
        return self

    @property
    def head(self) -> LinearHead:
        """The classifier that `fit` was given."""
        if self._head is None:
            raise NotFittedError(self)
        return self._head

    def energy(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        """-logsumexp_c of the head's logits for `features` [N, D], with other weights where given."""
        w = self.head.weight if weight is None else weight
        return -(features @ w.T + self.head.bias).logsumexp(1)


class NotFittedError(RuntimeError):
    """score() was called before fit()."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(f"{type(scorer).__name__} is not fitted; call fit(train_features, head=head) first")
