"""Features that another program has extracted, checked, as evaluation reads those of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError
from ood_lab.evaluation.evaluator import accuracy
from ood_lab.evaluation.extract import Extracted
from ood_lab.evaluation.given_shapes import WHAT, Shape, check_shapes
from ood_lab.plural import counted
from ood_lab.results.material import SYNTHESIZED
from ood_lab.scorer.base import InputScorer, Scorer
from ood_lab.types import FeatureSet, LinearHead

TAKEN = ("train", "val", "test", "head", SYNTHESIZED)  # names that no OOD set can have


class GivenFeatures:
    """Features, logits and labels of an ID training set, an ID test set and OOD sets, and the head between them.

    A set is features [N, D]; a pair of these and labels [N]; a `FeatureSet`; or a mapping with "features" and, where
    there are any, "logits" [N, C] and "labels" [N]. Without logits they are those of the head, where there is one.
    Arrays, tensors and nested lists will do; features and logits are kept as float32.

    Args:
        train, test: ID sets. Class labels of `train` are what some detectors are fitted with; those of `test` give the
            ID accuracy.
        ood: OOD sets by name.
        head: the classifier on the features: a `LinearHead`, a `torch.nn.Linear`, a pair of weight [C, D] and bias [C],
            or the weight alone. Of an image-text model the weight is the text embeddings of the class names.
        val: ID images that thresholds are taken from, where there are any.

    Raises:
        RequestError: a set is empty, has another width than `train`, holds NaN or infinities, or labels that are no
            class; or the head does not fit.
    """

    def __init__(self, train: Any, test: Any, ood: Mapping[str, Any], head: Any = None, val: Any = None) -> None:
        given = {"train": train, **({} if val is None else {"val": val}), "test": test, **_named(ood)}
        tensors_of_head = {} if head is None else _parts_of_head(head)
        tensors_of = {name: _tensors(name, _parts(name, value)) for name, value in given.items()}
        check_shapes({name: _shapes(tensors) for name, tensors in tensors_of.items()}, _shapes(tensors_of_head))
        self.head = None if head is None else _linear(tensors_of_head)
        sets = {name: _read(name, tensors) for name, tensors in tensors_of.items()}
        self.width = sets["train"]["features"].shape[1]
        if self.head is not None:
            for tensors in sets.values():
                if "logits" not in tensors:
                    tensors["logits"] = tensors["features"] @ self.head.weight.T + self.head.bias
        self.classes = _classes(sets, self.head)
        _check_labels(sets, self.classes, "there are" if self.head is None else "the head has")
        for name, tensors in sets.items():
            if "labels" not in tensors or name in ood:
                tensors["labels"] = torch.full((len(tensors["features"]),), -1)
        self.sets = {name: Extracted(tensors, _key(tensors)) for name, tensors in sets.items()}

    @property
    def head_key(self) -> str | None:
        """Twelve digits of the content of the head."""
        return None if self.head is None else _key(self.head._asdict())

    @property
    def names(self) -> list[str]:
        """The sets that are scored: "val" where there is one, "test", and the OOD sets."""
        return [name for name in self.sets if name != "train"]

    def of(self, name: str, scorer: Scorer | None = None) -> Extracted:
        """One set, the same for every detector."""
        return self.sets[name]

    def lacks(self, scorer: Scorer) -> str | None:
        """Why a detector can't be given these features; None where it can."""
        tensors = self.sets["train"].tensors
        if isinstance(scorer, InputScorer) and scorer.epsilon > 0:
            return "needs the images themselves"
        if not self.sets["train"].has(scorer.space):
            return f"reads {scorer.space}, which only networks trained here give"
        if "head" in scorer.requires and self.head is None:
            return "needs the classifier's head"
        if "labels" in scorer.requires and (tensors["labels"] < 0).all():
            return "needs class labels of the training set"
        if not scorer.features_alone and "logits" not in tensors:
            return "needs logits, or a head that gives them"
        return None

    def accuracy(self) -> float | None:
        """Share of the labelled ID test images whose largest logit is the right one; None without labels or logits."""
        test = self.sets["test"]
        return accuracy(test) if "logits" in test.tensors and (test.tensors["labels"] >= 0).any() else None


def _linear(tensors: Mapping[str, Tensor]) -> LinearHead:
    weight_CD = _floats("head weight", tensors["weight"])
    bias_C = _floats("head bias", tensors["bias"]) if "bias" in tensors else weight_CD.new_zeros(len(weight_CD))
    return LinearHead(weight_CD, bias_C)


def _parts_of_head(given: Any) -> dict[str, Tensor]:
    """The weight and, where there is one, the bias of any form of a head."""
    bias: Any = None
    if isinstance(given, nn.Linear):
        weight, bias = given.weight, given.bias
    elif isinstance(given, Mapping):
        unknown = sorted(set(given) - {"weight", "bias"})
        if unknown or "weight" not in given:
            raise RequestError(f"head: expected weight and bias, found {', '.join(map(str, given)) or 'nothing'}")
        weight, bias = given["weight"], given.get("bias")
    elif isinstance(given, tuple) or _is_pair(given):
        if len(given) != 2:
            raise RequestError(f"head: a tuple of {len(given)}; expected weight [C, D] and bias [C]")
        weight, bias = given
    else:
        weight = given
    found = {"weight": _tensor("head weight", weight)}
    return found if bias is None else {**found, "bias": _tensor("head bias", bias)}


def _named(ood: Mapping[str, Any]) -> dict[str, Any]:
    """The OOD sets; there must be some, and none may have the name of an ID set."""
    if not isinstance(ood, Mapping) or not ood:
        raise RequestError("ood: expected OOD sets by name, such as {'svhn': features}; there must be at least one")
    for name in ood:
        if not isinstance(name, str) or not name:
            raise RequestError(f"ood: an OOD set is called {name!r}; expected a name, such as 'svhn'")
        if name in TAKEN:
            raise RequestError(f"ood: an OOD set can't be called {name!r}, which means something else; rename it")
    return dict(ood)


def _tensors(name: str, parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """What was given of one set, as tensors that nothing was checked of yet."""
    return {what: _tensor(f"{name} {what}", value) for what, value in parts.items() if value is not None}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {what: tuple(values.shape) for what, values in tensors.items()}


def _read(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one set, whose values are checked, in the types that evaluation takes."""
    read = {what: _floats(f"{name} {what}", tensors[what]) for what in ("features", "logits") if what in tensors}
    return read if "labels" not in tensors else {**read, "labels": _labels(name, tensors["labels"])}


def _parts(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, FeatureSet):
        return dict(zip(WHAT, given, strict=True))
    if isinstance(given, Mapping):
        for what in given:
            if what not in WHAT:
                raise RequestError(f"{name}: holds {what!r}; expected features, logits, labels.{nearest(what, WHAT)}")
        return dict(given)
    if isinstance(given, tuple) or _is_pair(given):
        if len(given) != 2:
            raise RequestError(f"{name}: a tuple of {len(given)}; expected features [N, D] and labels [N]")
        return {"features": given[0], "labels": given[1]}
    return {"features": given}


def _is_pair(given: Any) -> bool:
    """Whether a list holds two arrays of different dimensions: no list of rows is so."""
    if not isinstance(given, list) or len(given) != 2 or not all(hasattr(part, "ndim") for part in given):
        return False
    return bool(given[0].ndim == 2 and given[1].ndim == 1)


def _floats(name: str, values: Tensor) -> Tensor:
    """Finite values as float32."""
    if values.dtype == torch.bool or values.is_complex():
        raise RequestError(f"{name}: values of type {str(values.dtype).removeprefix('torch.')}; expected numbers")
    values = values.float()
    lost = (~values.flatten(1).isfinite().all(1) if values.dim() > 1 else ~values.isfinite()).nonzero().flatten()
    if len(lost):
        raise RequestError(
            f"{name}: {len(lost)} of {counted(len(values), 'row')} with NaN or infinities, row {int(lost[0])} first; "
            "extract them again in float32, or leave these images out"
        )
    return values


def _labels(name: str, values: Tensor) -> Tensor:
    """Class numbers as int64."""
    whole = values.long()
    if values.is_floating_point() and not torch.equal(whole.to(values.dtype), values):
        raise RequestError(f"{name} labels: not whole numbers; expected the number of each row's class")
    return whole


def _tensor(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().cpu()
    try:
        if isinstance(given, list) and given and isinstance(given[0], Tensor):
            return torch.stack([row.detach().cpu() for row in given])
        array = np.asarray(given)
        if array.dtype.kind not in "iufb":
            raise ValueError("rows of different lengths, or values that are no numbers")
        double = array.dtype.kind == "f" and array.dtype.itemsize > 8  # long double, which torch lacks
        native = np.float64 if double else array.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(array, dtype=native, order="C", copy=True))
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{name}: not an array of numbers ({' '.join(str(error).split())})") from None


def _classes(sets: Mapping[str, Mapping[str, Tensor]], head: LinearHead | None) -> int | None:
    """How many classes there are, as far as head, logits or labels tell."""
    train = sets["train"]
    if head is not None:
        return len(head.weight)
    if "logits" in train:
        return train["logits"].shape[1]
    return int(train["labels"].max()) + 1 if "labels" in train else None


def _check_labels(sets: Mapping[str, Mapping[str, Tensor]], classes: int | None, why: str) -> None:
    """Labels of ID sets must be classes; -1 stands for unknown in test sets."""
    for name in ("train", "val", "test"):
        labels = sets.get(name, {}).get("labels")
        if labels is None or classes is None:
            continue
        lowest = 0 if name == "train" and (labels >= 0).any() else -1
        wrong = ((labels < lowest) | (labels >= classes)).nonzero().flatten()
        if len(wrong):
            unknown = "; leave unlabelled rows out" if int(labels[wrong[0]]) == -1 else ""
            raise RequestError(
                f"{name} labels: {int(labels[wrong[0]])} in row {int(wrong[0])}; expected {lowest} to "
                f"{classes - 1}, since {why} {counted(classes, 'class')}{unknown}"
            )


def _key(tensors: Mapping[str, Tensor]) -> str:
    """Twelve digits of the content of a set."""
    digest = hashlib.sha256()
    for what in sorted(tensors):
        digest.update(what.encode())
        digest.update(np.ascontiguousarray(tensors[what].numpy()).tobytes())
    return digest.hexdigest()[:12]
