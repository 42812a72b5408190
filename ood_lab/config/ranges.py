"""Annotations that carry a range: constructors use them, the checker reads them by name without importing torch."""

import math
from collections.abc import Callable
from typing import Any

type_check = Callable[[Any], bool]

# The aliases are what annotations say; the table below is what they mean.
PositiveInt = int
NonNegativeInt = int
PositiveFloat = float
NonNegativeFloat = float
Fraction = float
OpenFraction = float
PositiveFraction = float
Percentile = float
PositivePercent = float
Moment = float
WideResNetDepth = int
MapPoints = int
StageDepths = list[int]
PositiveInts = list[int]
PositiveFloats = list[float]
ChannelMeans = list[float]
ChannelDeviations = list[float]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_moment(value: Any) -> bool:
    return value >= 0 if _is_int(value) else _is_number(value) and 0 < value < 1


RANGES: dict[str, tuple[str, type_check]] = {
    "int": ("a whole number", _is_int),
    "float": ("a number", _is_number),
    "str": ("a string", lambda v: isinstance(v, str)),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "dict": ("a mapping", lambda v: isinstance(v, dict)),
    "list": ("a list", lambda v: isinstance(v, list)),
    "Path": ("a path", lambda v: isinstance(v, str)),
    "None": ("null", lambda v: v is None),
    "Any": ("anything", lambda _: True),
    "PositiveInt": ("a whole number above 0", lambda v: _is_int(v) and v > 0),
    "NonNegativeInt": ("a whole number, 0 or above", lambda v: _is_int(v) and v >= 0),
    "PositiveFloat": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "NonNegativeFloat": ("a number, 0 or above", lambda v: _is_number(v) and v >= 0),
    "Fraction": ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    "PositiveFraction": ("a number above 0, at most 1", lambda v: _is_number(v) and 0 < v <= 1),
    "OpenFraction": ("a number between 0 and 1", lambda v: _is_number(v) and 0 < v < 1),
    "WideResNetDepth": (
        "6 n + 4 with n of at least 1 (10, 16, ..., 40)",
        lambda v: _is_int(v) and v > 9 and v % 6 == 4,
    ),
    "MapPoints": ("a whole number of at least 20", lambda v: _is_int(v) and v >= 20),
    "PositiveInts": (
        "a list of whole numbers above 0",
        lambda v: isinstance(v, list) and all(_is_int(n) and n > 0 for n in v),
    ),
    "PositiveFloats": (
        "a list of numbers above 0",
        lambda v: isinstance(v, list) and all(_is_number(n) and n > 0 for n in v),
    ),
    "StageDepths": (
        "a list of four whole numbers above 0",
        lambda v: isinstance(v, list) and len(v) == 4 and all(_is_int(n) and n > 0 for n in v),
    ),
    "ChannelMeans": (
        "three numbers from 0 to 1, one a channel (divide by 255 what is stated on 0..255)",
        lambda v: isinstance(v, list) and len(v) == 3 and all(_is_number(n) and 0 <= n <= 1 for n in v),
    ),
    "ChannelDeviations": (
        "three numbers above 0, at most 1, one a channel (divide by 255 what is stated on 0..255)",
        lambda v: isinstance(v, list) and len(v) == 3 and all(_is_number(n) and 0 < n <= 1 for n in v),
    ),
    "Moment": ("a whole number of epochs, 0 or above, or a share of the run between 0 and 1", _is_moment),
    "Percentile": ("a number from 0 to 100", lambda v: _is_number(v) and 0 <= v <= 100),
    "PositivePercent": ("a number above 0, at most 100", lambda v: _is_number(v) and 0 < v <= 100),
}
