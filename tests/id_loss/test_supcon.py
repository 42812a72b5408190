"""The supervised contrastive loss as a term: its value against loops, what it trains, and two devices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.supcon import SupCon
from ood_lab.parts import Dimensions, Rows, View, WholeBatch
from tests import views
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, unit

C, D, TAU = 4, 5, 0.3
LABELS = torch.tensor([0, 2, 1, 2]).repeat(2)
ROWS = len(LABELS)
ALL = torch.arange(ROWS)
DEVICES = (ALL[::2], ALL[1::2])


def supcon(temperature: float = TAU, weight: float = 1.0) -> SupCon:
    term = SupCon(Dimensions(C, 8, D), temperature=temperature, weight=weight)
    term.name = "supcon"
    return term


def loss(z: Tensor, temperature: float = TAU, labels: Tensor = LABELS, own: Tensor = ALL) -> Tensor:
    whole = WholeBatch(Rows(z=z), labels, own, 2)
    found = supcon(temperature).losses(View(id=Rows(z=z[own]), labels=labels[own], kept={}, whole=whole))
    assert set(found) == {"supcon"}
    return found["supcon"]


def naive(z: list, temperature: float = TAU, own: list | None = None) -> float:
    return views.supcon(z, LABELS.tolist(), temperature, own)


@each("temperature", [0.1, 0.5, 1.0])
def test_it_matches_the_loop(temperature: float) -> None:
    z = unit(ROWS, D)
    assert loss(z, temperature).item() == pytest.approx(naive(z.tolist(), temperature), abs=1e-10)


def test_it_trains_the_rows() -> None:
    z = unit(ROWS, D).requires_grad_()
    loss(z).backward()
    assert_close(z.grad, differences(naive, z))


def test_names_of_classes_change_nothing() -> None:
    z = unit(ROWS, D)
    renamed = torch.tensor([3, 0, 2, 1])[LABELS]
    torch.testing.assert_close(loss(z, labels=renamed), loss(z), atol=1e-12, rtol=0)


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
    assert_reads_exactly(supcon(), LABELS, {"z": unit(ROWS, D)}, {}, {})
    assert (SupCon.reads_outliers, SupCon.waits_for_outliers, SupCon.views) == ((), False, 2)
    assert supcon().keeps() == {}


def test_it_has_the_weight_of_the_term() -> None:
    assert supcon(weight=3.0).weights() == {"supcon": 3.0}
