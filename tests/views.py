"""What tests of single terms share: exact vectors, finite differences, and views that hold only what is declared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.parts import SHIFTS, Rows, Term, View, WholeBatch


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


def supcon(
    z: Sequence[Sequence[float]], groups: Sequence[int], temperature: float, own: Sequence[int] | None = None
) -> float:
    """Khosla et al. 2020, Eq. 2 in loops; the mean over the rows at the places `own`, or over all."""
    places = range(len(z)) if own is None else own
    total = 0.0
    for i in places:
        others = [a for a in range(len(z)) if a != i]
        below = sum(math.exp(dot(z[i], z[a]) / temperature) for a in others)
        positives = [p for p in others if groups[p] == groups[i]]
        for p in positives:
            total -= math.log(math.exp(dot(z[i], z[p]) / temperature) / below) / len(positives)
    return total / len(places)


class MixtureLoops:
    """PALM's mixture in loops; prototype p belongs to class p mod C."""

    def __init__(self, classes: int, momentum: float, epsilon: float, top_k: int) -> None:
        self.classes, self.momentum, self.epsilon, self.top_k = classes, momentum, epsilon, top_k

    def assignments(self, z: list, mu: list) -> list[list[float]]:
        """Sinkhorn's Q of the rows' similarities: three times columns of sum 1, then rows of sum 1."""
        q = [[math.exp(dot(row, other) / self.epsilon) for other in mu] for row in z]
        for _ in range(3):
            columns = [sum(row[p] for row in q) for p in range(len(mu))]
            q = [[x / total for x, total in zip(row, columns, strict=True)] for row in q]
            q = [[x / sum(row) for x in row] for row in q]
        return q

    def strongest(self, q: list, labels: list) -> list[list[int]]:
        """For each row the prototypes of its class with the largest assignments."""
        chosen = []
        for row, label in zip(q, labels, strict=True):
            mine = [p for p in range(len(row)) if p % self.classes == label]
            chosen.append(sorted(mine, key=row.__getitem__, reverse=True)[: self.top_k])
        return chosen

    def shares(self, q: list, chosen: list) -> list[list[float]]:
        """Of the chosen prototypes the assignments, of sum 1 for each row."""
        rows = []
        for row, kept in zip(q, chosen, strict=True):
            total = sum(row[p] for p in kept)
            rows.append([row[p] / total if p in kept else 0.0 for p in range(len(row))])
        return rows

    def pulls(self, z: list, labels: list, mu: list) -> list[list[float]]:
        """w: each row's shares, then of sum 1 for each prototype that has any."""
        q = self.assignments(z, mu)
        shares = self.shares(q, self.strongest(q, labels))
        columns = [sum(row[p] for row in shares) for p in range(len(mu))]
        return [[x / total if total else 0.0 for x, total in zip(row, columns, strict=True)] for row in shares]

    def moved(self, z: list, labels: list, mu: list, pulls: list | None = None) -> list[list[float]]:
        """The prototypes after a step, with the w of these rows or with given ones."""
        w = self.pulls(z, labels, mu) if pulls is None else pulls
        after = []
        for p, old in enumerate(mu):
            pulled = [sum(w[i][p] * z[i][d] for i in range(len(z))) for d in range(len(old))]
            step = [self.momentum * a + (1 - self.momentum) * b for a, b in zip(old, pulled, strict=True)]
            after.append(normalise(step))
        return after

    def weights(self, z: list, labels: list, before: list, after: list) -> list[list[float]]:
        """w of the likelihood: shares in the moved prototypes of those that were strongest before."""
        chosen = self.strongest(self.assignments(z, before), labels)
        return self.shares(self.assignments(z, after), chosen)


def unlikelihood(z: list, mu: list, weights: list, temperature: float) -> list[float]:
    """log sum_p e^{z_i.mu_p/tau} - sum_p w_ip z_i.mu_p/tau of each row, in loops."""
    found = []
    for row, shares in zip(z, weights, strict=True):
        logits = [dot(row, other) / temperature for other in mu]
        found.append(math.log(sum(math.exp(x) for x in logits)) - dot(shares, logits))
    return found


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
    """The term runs on what it declares, and on nothing less; turned copies have the rows of the images as they are."""
    joint = torch.cat([labels + (int(labels.max()) + 1) * shift for shift in range(SHIFTS)])

    def view(
        without: str = "", without_of_outliers: str = "", without_of_whole: str = "", without_of_shifted: str = ""
    ) -> View:
        names = set(term.reads) - {without}
        of_outliers = set(term.reads_outliers) - {without_of_outliers}
        of_whole = Rows(**{name: rows[name] for name in set(term.reads_whole) - {without_of_whole}})
        of_shifted = set(term.reads_shifted) - {without_of_shifted}
        turns = Rows(**{name: torch.cat([rows[name]] * SHIFTS) for name in of_shifted})
        return View(
            id=Rows(**{name: rows[name] for name in names & set(rows)}),
            labels=labels,
            kept={name: kept[name] for name in names & set(kept)},
            outliers=Rows(**{name: outliers[name] for name in of_outliers}) if term.reads_outliers else None,
            whole=WholeBatch(of_whole, labels, torch.arange(len(labels)), term.views) if term.reads_whole else None,
            shifted=WholeBatch(turns, joint, torch.arange(len(joint)), term.views) if term.reads_shifted else None,
        )

    for value in term.losses(view()).values():
        assert value.shape == ()
        assert value.isfinite()
    for name in term.reads:
        with pytest.raises(LookupError, match=name):
            term.losses(view(without=name))
    for name in term.reads_whole:
        with pytest.raises(LookupError, match=name):
            term.losses(view(without_of_whole=name))
    for name in term.reads_shifted:
        with pytest.raises(LookupError, match=name):
            term.losses(view(without_of_shifted=name))
    for name in term.reads_outliers:
        with pytest.raises(LookupError, match=name):
            term.losses(view(without_of_outliers=name))


def assert_close(got: Tensor | None, expected: Any, tolerance: float = 1e-7) -> None:
    """A gradient that is there, is not zero, and is the expected one."""
    assert got is not None
    assert got.abs().max() > 1e-4
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)
