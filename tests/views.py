"""What tests of single terms share: exact vectors, finite differences, and views that hold only what is declared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.parts import Rows, Term, View


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random unit vectors in float64."""
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normalise(a: Sequence[float]) -> list[float]:
    return [x / math.sqrt(dot(a, a)) for x in a]


def log_softmax(values: Sequence[float]) -> list[float]:
    total = sum(math.exp(x) for x in values)
    return [math.log(math.exp(x) / total) for x in values]


def moved(mu: Sequence[Sequence[float]], z: Sequence[Sequence[float]], labels: Sequence[int], m: float) -> list:
    """Prototypes moved by one row after the other."""
    rows = [list(row) for row in mu]
    for row, c in zip(z, labels, strict=True):
        rows[c] = normalise([m * a + (1 - m) * b for a, b in zip(rows[c], row, strict=True)])
    return rows


def differences(f: Callable[[list], float], at: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of a function of nested lists, by central differences in each value."""
    flat = at.detach().flatten()

    def value(place: int, by: float) -> float:
        changed = flat.clone()
        changed[place] += by
        return f(changed.view(at.shape).tolist())

    slopes = [(value(i, step) - value(i, -step)) / (2 * step) for i in range(len(flat))]
    return torch.tensor(slopes, dtype=torch.float64).view(at.shape)


def assert_reads_exactly(
    term: Term, labels: Tensor, rows: dict[str, Tensor], outliers: dict[str, Tensor], kept: dict[str, Tensor]
) -> None:
    """The term runs on what it declares, and on nothing less."""

    def view(without: str = "", without_of_outliers: str = "") -> View:
        names = set(term.reads) - {without}
        of_outliers = set(term.reads_outliers) - {without_of_outliers}
        return View(
            id=Rows(**{name: rows[name] for name in names & set(rows)}),
            labels=labels,
            kept={name: kept[name] for name in names & set(kept)},
            outliers=Rows(**{name: outliers[name] for name in of_outliers}) if term.reads_outliers else None,
        )

    for value in term.losses(view()).values():
        assert value.shape == ()
        assert value.isfinite()
    for name in term.reads:
        with pytest.raises(LookupError, match=name):
            term.losses(view(without=name))
    for name in term.reads_outliers:
        with pytest.raises(LookupError, match=name):
            term.losses(view(without_of_outliers=name))


def assert_close(got: Tensor | None, expected: Any, tolerance: float = 1e-7) -> None:
    """A gradient that is there, is not zero, and is the expected one."""
    assert got is not None
    assert got.abs().max() > 1e-4
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)
