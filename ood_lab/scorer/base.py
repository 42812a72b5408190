"""What a detector is to the rest of the program."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ood_lab.errors import NotDefinedError
from ood_lab.types import FeatureSet, LinearHead

# "method" is the projection where the method trains one, else the penultimate features; the last three are what
# single methods give besides.
Space = Literal["method", "penultimate", "projection", "numerator", "shifts", "joint", "absent", "energy"]


class Scorer:
    """Fitted once on ID training features, it gives each row of any features one score; higher = more OOD.

    A subclass writes `_score`, and `_fit` where it learns from training features; what it is given was checked, and is
    never written into. `space` says which features the evaluator hands over, `requires` what besides them: the
    classifier's "head", the training "labels". With `features_alone` it reads no logits, so that it can score
    synthesized points of a feature space, too. One that is `by_name_only` is no part of scorer=all: it does not work on
    every network, or not with every installation.
    """

    by_name_only = False
    features_alone = False
    space: Space = "penultimate"
    requires: ClassVar[tuple[str, ...]] = ()
    _fitted = False
    _width: int | None = None  # of the features that it was fitted on

    def fit(
        self,
        train: FeatureSet | Any,
        head: LinearHead | None = None,
        val: FeatureSet | None = None,
        *,
        logits: Any = None,
        labels: Any = None,
    ) -> Self:
        """Take what the detector needs from the training features; for some, nothing.

        Args:
            train: a `FeatureSet`, or features [N, D] alone, as a tensor or an array, with `logits` [N, C] and `labels`
                [N] where the detector needs them. With a head, logits that are not given are its own.

        Raises:
            ValueError: no rows, or rows that aren't finite; labels or a head that the detector needs are missing or
                don't fit.
        """
        name = type(self).__name__
        if head is not None and getattr(head, "ndim", 2) == 1:
            raise ValueError(f"{name}: the second argument is the classifier's head; give class numbers as labels=...")
        head = self._given_head = None if head is None else _linear(head)
        train = self._as_set(train, logits, labels)
        if labels is not None and len(labels) != len(train.features):
            raise ValueError(f"{name}: {len(train.features)} rows of features and {len(labels)} labels")
        check(train, f"{name}: the training set", least=1)
        if "labels" in self.requires and train.labels is None:
            raise ValueError(f"{name} needs the training labels; call fit(features, labels=...)")
        if "head" in self.requires:
            if head is None:
                raise ValueError(f"{name} needs the classifier's head; call fit(train, head=LinearHead(...))")
            expected = (train.logits.shape[1], train.features.shape[1])
            found = tuple(head.weight.shape)
            if found != expected:
                raise ValueError(f"{name}: the head's weight is {found}; logits and features say {expected}")
            self.head = head
        self._width = train.features.shape[1]
        self._fit(train, val)
        self._fitted = True
        return self

    @property
    def learns(self) -> bool:
        """Whether it takes anything from training features or from the classifier's head."""
        return bool(self.requires) or type(self)._fit is not Scorer._fit

    def score(self, data: FeatureSet | Any, logits: Any = None) -> Tensor:
        """Scores [N] of a `FeatureSet`, or of features [N, D] alone (see `fit`).

        Raises:
            NotFittedError: the detector learns from training features and has not seen any.
            ValueError: rows that aren't finite, or that the detector gives no number.
        """
        if self.learns and not self._fitted:
            raise NotFittedError(self)
        name = type(self).__name__
        data = self._as_set(data, logits)
        check(data, f"{name}: the set to score")
        if self._width is not None and data.features.shape[1] != self._width and self.learns:
            raise ValueError(f"{name}: features of width {data.features.shape[1]}; it was fitted on {self._width}")
        scores = self._score(data)
        lost = int(scores.isnan().sum())
        if lost:
            raise ValueError(f"{name} gives no number for {lost} of {len(scores)} rows")
        return scores

    def __repr__(self) -> str:
        """Such as `KNN(k=50, space='method', index='torch')`."""
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if _is_option(key, value))
        return f"{type(self).__name__}({options})"

    def _as_set(self, data: FeatureSet | Any, logits: Any = None, labels: Any = None) -> FeatureSet:
        """Features alone as a set, with logits of the head where none are given.

        Raises:
            ValueError: the detector reads logits, and there are none.
        """
        if isinstance(data, FeatureSet):
            return data if labels is None else data._replace(labels=torch.as_tensor(labels).long())
        features = torch.as_tensor(data).float()
        if features.dim() != 2:
            raise ValueError(f"{type(self).__name__}: features of shape {list(features.shape)}; expected [N, D]")
        head = getattr(self, "_given_head", None)
        if logits is not None:
            outputs = torch.as_tensor(logits).float()
        elif head is not None:
            outputs = features @ head.weight.float().T + head.bias.float()
        elif self.features_alone:
            outputs = features.new_empty(len(features), 0)
        else:
            raise ValueError(
                f"{type(self).__name__} reads logits, too; give them (logits=...), a FeatureSet, or fit with head=..."
            )
        return FeatureSet(features, outputs, None if labels is None else torch.as_tensor(labels).long())

    def _fit(self, train: FeatureSet, val: FeatureSet | None) -> None:
        """Learn from the training features; `val` holds those of the validation part, where there is one."""

    def _score(self, data: FeatureSet) -> Tensor:
        """Scores [N]; a row's does not depend on the others."""
        raise NotDefinedError(self, "_score")


def _is_option(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, int | float | str | bool | None)


def _linear(head: Any) -> LinearHead:
    """A head from a `LinearHead`, a `torch.nn.Linear`, or weight and bias; outside any graph."""
    weight, bias = (head.weight, head.bias) if isinstance(head, nn.Linear) else head
    weight = torch.as_tensor(weight).detach()
    bias = weight.new_zeros(len(weight)) if bias is None else torch.as_tensor(bias).detach()
    return LinearHead(weight, bias)


class HeadScorer(Scorer):
    """A detector that passes changed penultimate features, or changed weights, through the classifier's head."""

    requires: ClassVar[tuple[str, ...]] = ("head",)

    def energy(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        """-logsumexp_c of the head's logits for `features` [N, D], with other weights where given."""
        w = self.head.weight if weight is None else weight
        return -(features @ w.T + self.head.bias).logsumexp(1)


class InputScorer(Scorer):
    """A detector that looks at changed images, x + epsilon sign(d objective / dx): it needs a pass of its own.

    `fit` is still given the features of the images as they are, `score` those of the changed ones.
    """

    epsilon: float
    changes_id = True  # or only the images of OOD sets

    def objective(self, outputs: dict[str, Tensor]) -> Tensor:
        """What the change raises [N], from the network's outputs (see `Method.extract`)."""
        raise NotDefinedError(self, "objective")

    def change(self) -> str:
        """The change in words: what the features of changed images depend on."""
        raise NotDefinedError(self, "change")


class NotFittedError(RuntimeError):
    """score() was called before fit()."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(f"{type(scorer).__name__} is not fitted; call fit(train_features, head=head) first")


def check(data: FeatureSet, what: str, least: int = 0) -> None:
    """Refuse features or logits that hold infinities or NaN, and fewer rows than `least`.

    Raises:
        ValueError: naming how many rows, and the first.
    """
    if len(data.features) < least:
        raise ValueError(f"{what} has no rows")
    for name, values in (("features", data.features), ("logits", data.logits)):
        # A sum is finite unless some value isn't, or unless it overflows: then the rows are looked at.
        if not values.sum().isfinite():
            lost = (~values.flatten(1).isfinite().all(1)).nonzero().flatten()
            if len(lost):
                raise ValueError(
                    f"{what}: the {name} of {len(lost)} of {len(values)} rows aren't finite, row {int(lost[0])} first; "
                    "the network has diverged, or overflows in reduced precision"
                )
