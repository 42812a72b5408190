"""What another value of an option changes: declared once, where the option is declared."""

from __future__ import annotations

import ast
from dataclasses import fields
from enum import Flag, auto


class Affects(Flag):
    """Marks of an option, as in `batch_size: Annotated[PositiveInt, WEIGHTS | COMPARABILITY]`."""

    NOTHING = 0
    WEIGHTS = auto()  # what a run learns: another value is another run
    FEATURES = auto()  # what a trained network is given of an image set
    SCORES = auto()  # a detector's scores, or the metrics taken from them
    COMPARABILITY = auto()  # whether our number stands for the one that a paper prints


NOTHING, WEIGHTS, FEATURES, SCORES = Affects.NOTHING, Affects.WEIGHTS, Affects.FEATURES, Affects.SCORES
COMPARABILITY = Affects.COMPARABILITY


def declared(annotation: ast.expr | None) -> Affects | None:
    """The mark of an annotation `Annotated[type, mark]`, read from its source; None without one."""
    match annotation:
        case ast.Subscript(value=head, slice=ast.Tuple(elts=[_, *marks])) if _last(head) == "Annotated":
            return next((found for mark in marks if (found := _read(mark)) is not None), None)
    return None


def of_fields(dataclass: type) -> dict[str, Affects]:
    """The marks of a dataclass's fields, those that it inherits included."""
    found = {}
    for option in fields(dataclass):
        if isinstance(option.type, str):  # under `from __future__ import annotations`
            mark = declared(ast.parse(option.type, mode="eval").body)
        else:
            mark = next((m for m in getattr(option.type, "__metadata__", ()) if isinstance(m, Affects)), None)
        if mark is not None:
            found[option.name] = mark
    return found


def _read(mark: ast.expr) -> Affects | None:
    match mark:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            first, second = _read(left), _read(right)
            return None if first is None or second is None else first | second
        case ast.Name() | ast.Attribute():
            return Affects.__members__.get(_last(mark))
    return None


def _last(name: ast.expr) -> str:
    return name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
