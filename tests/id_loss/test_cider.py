"""Compactness and dispersion as one term: values against loops, and what each trains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.cider import CIDER
from ood_lab.memory import Prototypes
from ood_lab.parts import Dimensions, Rows, View
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, log_softmax, moved, unit

C, D, M, TAU = 4, 5, 0.8, 0.3
LABELS = torch.tensor([0, 2, 1, 2, 3, 0, 2])
ROWS = len(LABELS)


def cider(temperature: float = TAU, weight: float = 1.0) -> CIDER:
    return CIDER(
        Dimensions(C, 8, D),
        temperature=temperature,
        prototype_momentum=M,
        w_compactness=0.5,
        w_dispersion=2.0,
        weight=weight,
    )


def losses(z: Tensor, prototypes: Tensor, temperature: float = TAU) -> dict[str, Tensor]:
    return cider(temperature).losses(View(id=Rows(z=z), labels=LABELS, kept={"prototypes": prototypes}))


def compactness(z: list, mu: list, temperature: float = TAU) -> float:
    total = 0.0
    for row, label in zip(z, LABELS.tolist(), strict=True):
        total -= log_softmax([dot(row, other) / temperature for other in mu])[label]
    return total / len(z)


def dispersion(mu: list, temperature: float = TAU) -> float:
    total = 0.0
    for i in range(C):
        inner = sum(math.exp(dot(mu[i], mu[j]) / temperature) for j in range(C) if j != i)
        total += math.log(inner / (C - 1))
    return total / C


@each("temperature", [0.1, 0.5, 1.0])
def test_both_scalars_match_the_loops(temperature: float) -> None:
    z, mu = unit(ROWS, D), unit(C, D, seed=1)
    found = losses(z, mu, temperature)
    assert set(found) == {"compactness", "dispersion"}
    expected = compactness(z.tolist(), mu.tolist(), temperature)
    assert float(found["compactness"]) == pytest.approx(expected, abs=1e-10)
    assert float(found["dispersion"]) == pytest.approx(dispersion(mu.tolist(), temperature), abs=1e-10)


def test_compactness_trains_the_rows_and_takes_the_prototypes_detached() -> None:
    z, mu = unit(ROWS, D).requires_grad_(), unit(C, D, seed=1).requires_grad_()
    losses(z, mu)["compactness"].backward()
    assert_close(z.grad, differences(lambda rows: compactness(rows, mu.tolist()), z))
    assert mu.grad is None


def test_dispersion_trains_the_prototypes_alone() -> None:
    z, mu = unit(ROWS, D).requires_grad_(), unit(C, D, seed=1).requires_grad_()
    losses(z, mu)["dispersion"].backward()
    assert_close(mu.grad, differences(dispersion, mu))
    assert z.grad is None


@each("name", ["compactness", "dispersion"])
def test_through_the_moving_prototypes_dispersion_trains_the_rows_and_compactness_does_not(name: str) -> None:
    z, mu = unit(ROWS, D).requires_grad_(), unit(C, D, seed=1)
    memory = cider().keeps()["prototypes"](Dimensions(C, 8, D)).double()
    memory.values.copy_(mu)
    losses(z, memory.offer(z, LABELS, np.bincount(LABELS.numpy(), minlength=C)))[name].backward()

    labels = LABELS.tolist()
    after = moved(mu.tolist(), z.tolist(), labels, M)
    expected = {
        "compactness": lambda rows: compactness(rows, after),
        "dispersion": lambda rows: dispersion(moved(mu.tolist(), rows, labels, M)),
    }[name]
    assert_close(z.grad, differences(expected, z))


def test_the_weights_are_those_of_the_scalars_times_that_of_the_term() -> None:
    assert cider().weights() == {"compactness": 0.5, "dispersion": 2.0}
    assert cider(weight=3.0).weights() == {"compactness": 1.5, "dispersion": 6.0}


def test_it_reads_rows_and_prototypes_alone_and_takes_two_views() -> None:
    assert_reads_exactly(cider(), LABELS, {"z": unit(ROWS, D)}, {}, {"prototypes": unit(C, D, seed=1)})
    assert (CIDER.reads_outliers, CIDER.waits_for_outliers, CIDER.views) == ((), False, 2)


def test_it_keeps_prototypes_of_the_projections_with_its_momentum() -> None:
    made = cider().keeps()
    assert set(made) == {"prototypes"}
    memory = made["prototypes"](Dimensions(C, 8, D))
    assert isinstance(memory, Prototypes)
    assert memory.values.shape == (C, D)
    assert (memory.momentum, memory.space) == (M, "z")
