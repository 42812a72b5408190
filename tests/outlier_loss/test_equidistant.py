"""The equidistant form as a term: its value against a loop, and that it trains through live prototypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.memory import Prototypes
from ood_lab.outlier_loss.equidistant import Equidistant
from ood_lab.parts import Dimensions, Rows, View
from tests import small
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, log_softmax, moved, unit

C, D, K, M, TAU = 4, 5, 6, 0.8, 0.3
LABELS = torch.tensor([0, 2, 1, 2, 3, 0, 2])


def equidistant(temperature: float = TAU) -> Equidistant:
    return Equidistant(Dimensions(C, 8, D), temperature=temperature, prototype_momentum=M)


def loss(outliers: Tensor, prototypes: Tensor, temperature: float = TAU) -> Tensor:
    view = View(id=Rows(), labels=LABELS, kept={"prototypes": prototypes}, outliers=Rows(z=outliers))
    return equidistant(temperature).loss(view)


def naive(outliers: list, mu: list, temperature: float = TAU) -> float:
    total = 0.0
    for row in outliers:
        total -= sum(log_softmax([-dot(row, other) / temperature for other in mu])) / C
    return total / len(outliers)


@each("temperature", [0.1, 0.5, 1.0])
def test_it_matches_the_loop(temperature: float) -> None:
    outliers, mu = unit(K, D), unit(C, D, seed=1)
    expected = naive(outliers.tolist(), mu.tolist(), temperature)
    assert float(loss(outliers, mu, temperature)) == pytest.approx(expected, abs=1e-10)


def test_it_trains_the_prototypes() -> None:
    outliers, mu = unit(K, D), unit(C, D, seed=1).requires_grad_()
    loss(outliers, mu).backward()
    assert_close(mu.grad, differences(lambda rows: naive(outliers.tolist(), rows), mu))


def test_it_trains_the_id_rows_through_the_prototypes_that_they_move() -> None:
    outliers, mu, z = unit(K, D), unit(C, D, seed=1), unit(len(LABELS), D, seed=2).requires_grad_()
    memory = equidistant().keeps()["prototypes"](Dimensions(C, 8, D)).double()
    memory.values.copy_(mu)
    loss(outliers, memory.offer(z, LABELS, np.bincount(LABELS.numpy(), minlength=C))).backward()
    labels = LABELS.tolist()
    expected = differences(lambda rows: naive(outliers.tolist(), moved(mu.tolist(), rows, labels, M)), z)
    assert_close(z.grad, expected)


def test_points_of_a_source_are_not_trained() -> None:
    points = small.unit(5, small.D, seed=3).requires_grad_()
    module = small.fill(small.method(small.terms(outlier_loss="equidistant"), small.Fixed(points)))
    assert small.gradient(module, small.batch(), "equidistant").abs().max() > 0
    assert points.grad is None


def test_it_reads_prototypes_and_projections_of_outliers_alone() -> None:
    outliers = {"z": unit(K, D)}
    assert_reads_exactly(equidistant(), LABELS, {}, outliers, {"prototypes": unit(C, D, seed=1)})
    assert Equidistant.views == 1


def test_it_keeps_prototypes_of_the_projections_with_its_momentum() -> None:
    memory = equidistant().keeps()["prototypes"](Dimensions(C, 8, D))
    assert isinstance(memory, Prototypes)
    assert (memory.momentum, tuple(memory.values.shape)) == (M, (C, D))
