"""Whether the shapes of given features, logits, labels and of a head fit together. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from ood_lab.errors import RequestError
from ood_lab.plural import counted

WHAT = ("features", "logits", "labels")
Shape = tuple[int, ...]


def check_shapes(sets: Mapping[str, Mapping[str, Shape]], head: Mapping[str, Shape]) -> None:
    """Every set must fit the training set and the head.

    Args:
        sets: by the name of a set the shapes of its features [N, D], logits [N, C] and labels [N], as far as given.
        head: the shapes of weight [C, D] and bias [C], as far as given.

    Raises:
        RequestError: the first shape that does not fit.
    """
    for name, shapes in sets.items():
        _check_set(name, shapes)
    _check_head(head)
    for name in sets:
        _check_beside_train(name, sets, bool(head))
    if head:
        _check_head_beside(sets["train"], head["weight"])


def _check_head(head: Mapping[str, Shape]) -> None:
    """A weight must have two dimensions and a bias as many numbers as the weight has rows.

    Raises:
        RequestError: they don't.
    """
    if not head:
        return
    if "weight" not in head:
        raise RequestError(f"head: expected weight and bias, found {', '.join(head)}")
    for what, dimensions in (("weight", 2), ("bias", 1)):
        if what in head:
            _check_dimensions(f"head {what}", head[what], dimensions)
    weight = head["weight"]
    classes = weight[0]
    if not classes:
        raise RequestError(f"head: its weight is {_shape_text(weight)}, of no class")
    if "bias" in head and head["bias"][0] != classes:
        turned = _if_turned(weight, weight[1] == head["bias"][0])
        raise RequestError(
            f"head: a weight of {counted(classes, 'class')} and a bias of {head['bias'][0]}; they must agree{turned}"
        )


def _shape_text(shape: Shape) -> str:
    """Such as [50, 128]."""
    return str(list(shape))


def _check_set(name: str, shapes: Mapping[str, Shape]) -> None:
    if "features" not in shapes:
        raise RequestError(f"{name}: no features; found {', '.join(shapes) or 'nothing'}")
    for what in ("features", "logits"):
        if what in shapes:
            _check_dimensions(f"{name} {what}", shapes[what], 2)
    rows = shapes["features"][0]
    if not rows:
        raise RequestError(f"{name} features: no rows; expected one for each image")
    labels = shapes.get("labels", (rows,))
    if len(labels) != 1:
        raise RequestError(f"{name} labels: shape {_shape_text(labels)}; expected [N], the number of each row's class")
    for what, shape in shapes.items():
        if shape[0] != rows:
            raise RequestError(f"{name}: {counted(rows, 'row')} of features and {shape[0]} of {what}; they must agree")


def _check_dimensions(name: str, shape: Shape, dimensions: int) -> None:
    if len(shape) != dimensions:
        advice = "; pool maps of features first" if len(shape) > 2 else ", a row for each image"
        expected = f"[N, D]{advice}" if name.endswith("features") else f"{dimensions} dimensions"
        raise RequestError(f"{name}: shape {_shape_text(shape)}; expected {expected}")
    if dimensions == 2 and shape[1] == 0:
        raise RequestError(f"{name}: rows of no numbers, shape {_shape_text(shape)}")


def _check_beside_train(name: str, sets: Mapping[str, Mapping[str, Shape]], has_head: bool) -> None:
    shapes, train = sets[name], sets["train"]
    width, expected = shapes["features"][1], train["features"][1]
    if width != expected:
        raise RequestError(
            f"{name}: features of width {width}, and those of train have {expected}; take all from one layer"
        )
    if not has_head and ("logits" in shapes) != ("logits" in train):
        have, lack = (name, "train") if "logits" in shapes else ("train", name)
        raise RequestError(f"{lack} has no logits, and {have} has; give them for every set or none, or a head")
    if "logits" in shapes and "logits" in train and shapes["logits"][1] != train["logits"][1]:
        counts = f"{shapes['logits'][1]} logits a row, and train has {train['logits'][1]}"
        raise RequestError(f"{name}: {counts}; take all from one network")


def _check_head_beside(train: Mapping[str, Shape], weight: Shape) -> None:
    width = train["features"][1]
    if weight[1] != width:
        turned = _if_turned(weight, weight[0] == width)
        raise RequestError(
            f"head: its weight is {_shape_text(weight)}, for features of width {weight[1]}; the features given have "
            f"{width}{turned}"
        )
    if "logits" in train and train["logits"][1] != weight[0]:
        raise RequestError(
            f"head: its weight is {_shape_text(weight)}, of {counted(weight[0], 'class')}; the given logits have "
            f"{counted(train['logits'][1], 'column')}"
        )


def _if_turned(weight: Shape, looks_turned: bool) -> str:
    return f". The weight looks transposed: give [C, D], {_shape_text(weight[::-1])}" if looks_turned else ""
