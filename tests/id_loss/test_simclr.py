"""NT-Xent as a term: its value against loops and in closed form, what it trains, and two devices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.simclr import SimCLR
from ood_lab.parts import Dimensions, Rows, View, WholeBatch
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, dot, unit

C, D, TAU = 4, 5, 0.3
LABELS = torch.tensor([0, 2, 1, 2]).repeat(2)
ROWS = len(LABELS)
ALL = torch.arange(ROWS)
DEVICES = (ALL[::2], ALL[1::2])


def simclr(temperature: float = TAU, weight: float = 1.0) -> SimCLR:
    term = SimCLR(Dimensions(C, 8, D), temperature=temperature, weight=weight)
    term.name = "simclr"
    return term


def loss(z: Tensor, temperature: float = TAU, labels: Tensor = LABELS, own: Tensor = ALL) -> Tensor:
    whole = WholeBatch(Rows(z=z), labels, own, 2)
    found = simclr(temperature).losses(View(id=Rows(z=z[own]), labels=labels[own], kept={}, whole=whole))
    assert set(found) == {"simclr"}
    return found["simclr"]


def naive(z: list, temperature: float = TAU, own: list | None = None) -> float:
    """The other view of row i is row i + N/2, or i - N/2."""
    places = range(len(z)) if own is None else own
    total = 0.0
    for i in places:
        other = (i + len(z) // 2) % len(z)
        below = sum(math.exp(dot(z[i], z[a]) / temperature) for a in range(len(z)) if a != i)
        total -= math.log(math.exp(dot(z[i], z[other]) / temperature) / below)
    return total / len(places)


@each("temperature", [0.1, 0.5, 1.0])
def test_it_matches_the_loop(temperature: float) -> None:
    z = unit(ROWS, D)
    assert loss(z, temperature).item() == pytest.approx(naive(z.tolist(), temperature), abs=1e-10)


@each("temperature", [0.1, 0.5])
def test_two_images_at_right_angles_have_a_closed_form(temperature: float) -> None:
    z, labels = torch.eye(2, dtype=torch.float64).repeat(2, 1), torch.zeros(4, dtype=torch.int64)
    expected = math.log(1 + 2 * math.exp(-1 / temperature))
    assert loss(z, temperature, labels, torch.arange(4)).item() == pytest.approx(expected, abs=1e-12)


def test_two_views_of_one_image_have_nothing_to_be_told_from() -> None:
    assert loss(unit(2, D), labels=LABELS[[0, 0]], own=torch.arange(2)).item() == pytest.approx(0, abs=1e-12)


def test_it_trains_the_rows() -> None:
    z = unit(ROWS, D).requires_grad_()
    loss(z).backward()
    assert_close(z.grad, differences(naive, z))


def test_labels_change_nothing() -> None:
    z = unit(ROWS, D)
    for labels in (torch.zeros_like(LABELS), LABELS.flip(0), ALL):
        torch.testing.assert_close(loss(z, labels=labels), loss(z), atol=1e-12, rtol=0)


def test_rows_of_a_device_are_compared_with_those_of_all() -> None:
    z = unit(ROWS, D)
    for own in DEVICES:
        assert loss(z, own=own).item() == pytest.approx(naive(z.tolist(), own=own.tolist()), abs=1e-10)


def test_two_devices_have_the_mean_and_the_gradient_of_one() -> None:
    z, apart = unit(ROWS, D).requires_grad_(), unit(ROWS, D).requires_grad_()
    one, two = loss(z), torch.stack([loss(apart, own=own) for own in DEVICES]).mean()
    torch.testing.assert_close(two, one, atol=1e-12, rtol=0)
    one.backward()
    two.backward()
    assert_close(apart.grad, z.grad, 1e-12)


def test_it_reads_rows_of_this_device_and_of_all_and_takes_two_views() -> None:
    assert_reads_exactly(simclr(), LABELS, {"z": unit(ROWS, D)}, {}, {})
    assert (SimCLR.reads_outliers, SimCLR.waits_for_outliers, SimCLR.views) == ((), False, 2)
    assert simclr().keeps() == {}


def test_it_has_the_weight_of_the_term() -> None:
    assert simclr(weight=3.0).weights() == {"simclr": 3.0}
