"""CSI's contrast: a class under each shift is a class of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.csi import CSI
from ood_lab.parts import SHIFTS, Dimensions, Rows, View, WholeBatch
from tests.views import assert_close, differences, supcon, unit

C, D, TAU = 3, 5, 0.3
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])  # two views of three images
N = len(LABELS)
JOINT = torch.cat([LABELS + C * shift for shift in range(SHIFTS)])


def loss(z: Tensor, own: Tensor | None = None) -> Tensor:
    places = torch.arange(len(JOINT)) if own is None else own
    shifted = WholeBatch(Rows(z=z), JOINT, places, 2)
    term = CSI(Dimensions(C, 8, D), temperature=TAU)
    return term.loss(View(id=Rows(), labels=LABELS, kept={}, shifted=shifted))


def naive(z: list) -> float:
    return supcon(z, JOINT.tolist(), TAU)


def test_it_is_supcon_with_a_class_for_each_shift_and_its_gradient() -> None:
    z = unit(len(JOINT), D).requires_grad_()
    value = loss(z)
    assert float(value) == pytest.approx(naive(z.tolist()), abs=1e-10)
    value.backward()
    assert_close(z.grad, differences(naive, z))


def test_the_same_class_under_two_shifts_is_two_classes() -> None:
    z = unit(len(JOINT), D)
    plain = supcon(z.tolist(), LABELS.repeat(SHIFTS).tolist(), TAU)
    assert float(loss(z)) != pytest.approx(plain, abs=1e-3)


def test_two_devices_average_to_one() -> None:
    z = unit(len(JOINT), D)
    own = [torch.arange(first, len(JOINT), 2) for first in (0, 1)]
    halves = [loss(z, places) for places in own]
    assert float(sum(halves) / 2) == pytest.approx(float(loss(z)), abs=1e-10)


def test_it_reads_turned_projections_of_two_views_alone() -> None:
    assert (CSI.reads, CSI.reads_whole, CSI.reads_outliers, CSI.views) == ((), (), (), 2)
    with pytest.raises(LookupError, match="shifted images"):
        CSI(Dimensions(C, 8, D), temperature=TAU).loss(View(id=Rows(), labels=LABELS, kept={}))
