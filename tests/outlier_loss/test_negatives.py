"""Outliers as negatives: the value against a loop, and what is trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.memory import Prototypes
from ood_lab.outlier_loss.negatives import Negatives
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, unit

C, D, K, M, TAU = 3, 5, 6, 0.8, 0.3
LABELS = torch.tensor([0, 2, 1, 2, 0])
ROWS = len(LABELS)


def negatives(temperature: float = TAU) -> Negatives:
    return Negatives(Dimensions(C, 8, D), temperature=temperature, prototype_momentum=M)


def loss(z: Tensor, outliers: Tensor, prototypes: Tensor, temperature: float = TAU) -> Tensor:
    view = View(id=Rows(z=z), labels=LABELS, kept={"prototypes": prototypes}, outliers=Rows(z=outliers))
    return negatives(temperature).loss(view)


def naive(z: list, outliers: list, mu: list, temperature: float = TAU) -> float:
    total = 0.0
    for row, label in zip(z, LABELS.tolist(), strict=True):
        own = math.exp(dot(row, mu[label]) / temperature)
        total -= math.log(own / (own + sum(math.exp(dot(row, o) / temperature) for o in outliers)))
    return total / len(z)


@each("temperature", [0.1, 0.5, 1.0])
@each("outliers", [1, K])
def test_it_matches_the_loop(temperature: float, outliers: int) -> None:
    z, others, mu = unit(ROWS, D), unit(outliers, D, seed=1), unit(C, D, seed=2)
    expected = naive(z.tolist(), others.tolist(), mu.tolist(), temperature)
    assert float(loss(z, others, mu, temperature)) == pytest.approx(expected, abs=1e-10)


def test_it_trains_the_id_rows_and_takes_the_prototypes_detached() -> None:
    z, others, mu = unit(ROWS, D).requires_grad_(), unit(K, D, seed=1), unit(C, D, seed=2).requires_grad_()
    loss(z, others, mu).backward()
    assert_close(z.grad, differences(lambda rows: naive(rows, others.tolist(), mu.tolist()), z))
    assert mu.grad is None


def test_it_is_exact_where_an_outlier_is_far_nearer_than_the_prototype() -> None:
    z = torch.eye(2)[[0] * ROWS]
    mu = -torch.eye(2)[[0] * C]
    assert float(loss(z, z[:1], mu, 0.001)) == pytest.approx(2000)
    assert float(loss(z, -z[:1], -mu, 0.001)) == pytest.approx(0, abs=1e-6)


def test_it_reads_rows_prototypes_and_projections_of_outliers_alone() -> None:
    prototypes = {"prototypes": unit(C, D, seed=2)}
    assert_reads_exactly(negatives(), LABELS, {"z": unit(ROWS, D)}, {"z": unit(K, D, seed=1)}, prototypes)


def test_it_keeps_prototypes_with_its_momentum() -> None:
    memory = negatives().keeps()["prototypes"](Dimensions(C, 8, D))
    assert isinstance(memory, Prototypes)
    assert (memory.momentum, tuple(memory.values.shape)) == (M, (C, D))
