"""CSI's contrast: a class under each shift is a class of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.csi import CSI
from ood_lab.parts import SHIFTS, Dimensions, Rows, View, WholeBatch
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, supcon, unit

C, D, TAU = 3, 5, 0.3
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])  # two views of three images
N = len(LABELS)
JOINT = torch.cat([LABELS + C * shift for shift in range(SHIFTS)])
ALL = torch.arange(len(JOINT))
# Of two devices each has its rows of every block.
DEVICES = tuple(torch.cat([block * N + torch.arange(first, N, 2) for block in range(SHIFTS)]) for first in (0, 1))


def csi(temperature: float = TAU, weight: float = 1.0) -> CSI:
    term = CSI(Dimensions(C, 8, D), temperature=temperature, weight=weight)
    term.name = "csi"
    return term


def loss(z: Tensor, own: Tensor = ALL, temperature: float = TAU, labels: Tensor = JOINT) -> Tensor:
    shifted = WholeBatch(Rows(z=z), labels, own, 2)
    found = csi(temperature).losses(View(id=Rows(), labels=LABELS, kept={}, shifted=shifted))
    assert set(found) == {"csi"}
    return found["csi"]


def naive(z: list, own: Tensor = ALL, temperature: float = TAU) -> float:
    return supcon(z, JOINT.tolist(), temperature, own.tolist())


@each("temperature", [0.1, TAU, 1.0])
def test_it_is_supcon_with_a_class_for_each_shift(temperature: float) -> None:
    z = unit(len(JOINT), D)
    expected = naive(z.tolist(), temperature=temperature)
    assert loss(z, temperature=temperature).item() == pytest.approx(expected, abs=1e-10)


def test_it_trains_the_rows_of_every_shift() -> None:
    z = unit(len(JOINT), D).requires_grad_()
    loss(z).backward()
    assert_close(z.grad, differences(naive, z))
    assert z.grad is not None
    assert all(z.grad[i].abs().max() > 1e-3 for i in range(len(JOINT)))


def test_the_same_class_under_two_shifts_is_two_classes() -> None:
    z = unit(len(JOINT), D)
    plain = supcon(z.tolist(), LABELS.repeat(SHIFTS).tolist(), TAU)
    assert loss(z).item() != pytest.approx(plain, abs=1e-3)
    assert loss(z, labels=LABELS.repeat(SHIFTS)).item() == pytest.approx(plain, abs=1e-10)


def test_rows_of_a_device_are_compared_with_those_of_all() -> None:
    z = unit(len(JOINT), D)
    assert sorted(torch.cat(DEVICES).tolist()) == ALL.tolist()
    for own in DEVICES:
        assert loss(z, own).item() == pytest.approx(naive(z.tolist(), own), abs=1e-10)


def test_two_devices_have_the_mean_and_the_gradient_of_one() -> None:
    z, apart = unit(len(JOINT), D).requires_grad_(), unit(len(JOINT), D).requires_grad_()
    halves = [loss(apart, own) for own in DEVICES]
    assert halves[0].item() != pytest.approx(halves[1].item(), abs=1e-3)
    one, two = loss(z), torch.stack(halves).mean()
    torch.testing.assert_close(two, one, atol=1e-12, rtol=0)
    one.backward()
    two.backward()
    assert_close(apart.grad, z.grad, 1e-12)


def test_it_reads_turned_projections_of_two_views_alone() -> None:
    assert_reads_exactly(csi(), LABELS, {"z": unit(N, D)}, {}, {})
    assert (CSI.reads, CSI.reads_whole, CSI.reads_outliers, CSI.views) == ((), (), (), 2)
    assert CSI.reads_shifted == ("z",)
    assert not CSI.waits_for_outliers
    assert csi().keeps() == {}
    with pytest.raises(LookupError, match="declare reads_shifted"):
        csi().losses(View(id=Rows(), labels=LABELS, kept={}))


def test_it_has_the_weight_of_the_term() -> None:
    assert csi(weight=3.0).weights() == {"csi": 3.0}
