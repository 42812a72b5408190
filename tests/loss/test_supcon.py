"""The supervised contrastive loss against loops over rows, in closed forms, and shared between devices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.loss.supcon import supcon
from tests import views
from tests.cases import each
from tests.views import assert_close, differences, unit

N, D, TAU = 9, 5, 0.3
GROUPS = torch.tensor([0, 2, 1, 2, 3, 0, 2, 1, 0])  # row 4 is alone
ALL = torch.arange(N)


def loss(z: Tensor, groups: Tensor = GROUPS, temperature: float = TAU, own: Tensor | None = None) -> Tensor:
    places = torch.arange(len(z)) if own is None else own
    return supcon(z[places], z, places, groups, temperature)


@each("temperature", [0.07, 0.5, 1.0])
@each("groups", [GROUPS, torch.arange(N) % 3, torch.zeros(N, dtype=torch.int64)])
def test_it_matches_the_loop(groups: Tensor, temperature: float) -> None:
    z = unit(N, D)
    expected = views.supcon(z.tolist(), groups.tolist(), temperature)
    assert loss(z, groups, temperature).item() == pytest.approx(expected, abs=1e-10)


def test_gradients_match_finite_differences() -> None:
    z = unit(N, D).requires_grad_()
    loss(z).backward()
    assert_close(z.grad, differences(lambda rows: views.supcon(rows, GROUPS.tolist(), TAU), z))


@each("own", [ALL[::2], ALL[1::2], torch.tensor([7, 0, 3])])
def test_rows_of_a_device_are_compared_with_those_of_all(own: Tensor) -> None:
    z = unit(N, D).requires_grad_()
    found = loss(z, own=own)
    expected = views.supcon(z.tolist(), GROUPS.tolist(), TAU, own.tolist())
    assert found.item() == pytest.approx(expected, abs=1e-10)
    found.backward()
    assert_close(z.grad, differences(lambda rows: views.supcon(rows, GROUPS.tolist(), TAU, own.tolist()), z))


def test_two_devices_have_the_mean_of_one() -> None:
    z, groups = unit(8, D), GROUPS[:8]
    halves = [loss(z, groups, own=torch.arange(8)[first::2]) for first in (0, 1)]
    assert (halves[0] - halves[1]).abs() > 1e-2
    torch.testing.assert_close(torch.stack(halves).mean(), loss(z, groups), atol=1e-12, rtol=0)


def test_names_of_groups_and_order_of_rows_change_nothing() -> None:
    z = unit(N, D)
    renamed = torch.tensor([7, 1, 0, 4])[GROUPS]
    torch.testing.assert_close(loss(z, renamed), loss(z), atol=1e-12, rtol=0)
    order = torch.tensor([4, 8, 0, 3, 6, 1, 7, 2, 5])
    torch.testing.assert_close(loss(z[order], GROUPS[order]), loss(z), atol=1e-12, rtol=0)


def test_a_row_that_is_alone_counts_0_in_the_mean() -> None:
    z = unit(3, D)
    first, second, third = z.tolist()
    total = 0.0
    for row, other in ((first, second), (second, first)):
        own, foreign = math.exp(views.dot(row, other) / TAU), math.exp(views.dot(row, third) / TAU)
        total -= math.log(own / (own + foreign))
    assert loss(z, torch.tensor([5, 5, 1])).item() == pytest.approx(total / 3, abs=1e-12)


@each("rows", [2, 6])
def test_of_rows_that_are_all_alone_the_loss_and_its_gradient_are_0(rows: int) -> None:
    z = unit(rows, D).requires_grad_()
    found = loss(z, torch.arange(rows))
    found.backward()
    assert found.item() == 0
    assert z.grad is not None
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_of_one_row_the_loss_is_0() -> None:
    assert loss(unit(1, D), torch.zeros(1, dtype=torch.int64)).item() == 0


@each("temperature", [0.1, 0.5])
def test_two_pairs_at_right_angles_have_a_closed_form(temperature: float) -> None:
    z = torch.eye(2, dtype=torch.float64).repeat(2, 1)
    expected = math.log(1 + 2 * math.exp(-1 / temperature))
    assert loss(z, torch.tensor([0, 1, 0, 1]), temperature).item() == pytest.approx(expected, abs=1e-12)


@each("rows", [2, 5])
def test_of_equal_rows_it_is_the_logarithm_of_the_number_of_others(rows: int) -> None:
    z = unit(1, D).expand(rows, D)
    assert loss(z, torch.zeros(rows, dtype=torch.int64)).item() == pytest.approx(math.log(rows - 1), abs=1e-12)


def test_it_is_finite_at_a_tiny_temperature() -> None:
    z = torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0]].requires_grad_()
    found = loss(z, torch.tensor([0, 1, 0, 1]), 1e-3)
    found.backward()
    assert found.item() == pytest.approx(1000, abs=1e-9)
    assert z.grad is not None
    assert z.grad.isfinite().all()
