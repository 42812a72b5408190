"""The released form: ID rows and detached prototypes, and no outliers in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.memory import Prototypes
from ood_lab.outlier_loss.released import Released
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, log_softmax, unit

C, D, M, TAU = 4, 5, 0.8, 0.3
LABELS = torch.tensor([0, 2, 1, 2, 3, 0, 2])
ROWS = len(LABELS)


def released(temperature: float = TAU) -> Released:
    return Released(Dimensions(C, 8, D), temperature=temperature, prototype_momentum=M)


def loss(z: Tensor, prototypes: Tensor, temperature: float = TAU, outliers: Rows | None = None) -> Tensor:
    view = View(id=Rows(z=z), labels=LABELS, kept={"prototypes": prototypes}, outliers=outliers)
    return released(temperature).loss(view)


def naive(z: list, mu: list, temperature: float = TAU) -> float:
    total = 0.0
    for row in z:
        total -= sum(log_softmax([-dot(row, other) / temperature for other in mu])) / C
    return total / len(z)


@each("temperature", [0.1, 0.5, 1.0])
def test_it_is_the_equidistant_form_of_the_id_rows(temperature: float) -> None:
    z, mu = unit(ROWS, D), unit(C, D, seed=1)
    expected = naive(z.tolist(), mu.tolist(), temperature)
    assert float(loss(z, mu, temperature)) == pytest.approx(expected, abs=1e-10)


def test_it_trains_the_id_rows_and_takes_the_prototypes_detached() -> None:
    z, mu = unit(ROWS, D).requires_grad_(), unit(C, D, seed=1).requires_grad_()
    loss(z, mu).backward()
    assert_close(z.grad, differences(lambda rows: naive(rows, mu.tolist()), z))
    assert mu.grad is None


def test_outliers_are_not_in_it() -> None:
    z, mu, outliers = unit(ROWS, D), unit(C, D, seed=1), unit(6, D, seed=2).requires_grad_()
    assert float(loss(z, mu, outliers=Rows(z=outliers))) == float(loss(z, mu))
    assert not loss(z, mu, outliers=Rows(z=outliers)).requires_grad


def test_it_reads_rows_and_prototypes_alone_and_waits_for_outliers() -> None:
    assert_reads_exactly(released(), LABELS, {"z": unit(ROWS, D)}, {}, {"prototypes": unit(C, D, seed=1)})
    assert Released.reads_outliers == ()
    assert Released.waits_for_outliers


def test_it_keeps_prototypes_with_its_momentum() -> None:
    memory = released().keeps()["prototypes"](Dimensions(C, 8, D))
    assert isinstance(memory, Prototypes)
    assert (memory.momentum, tuple(memory.values.shape)) == (M, (C, D))
