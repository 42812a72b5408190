"""The joint head's cross-entropy over classes and shifts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.id_loss.csi_joint import CSIJoint
from ood_lab.parts import SHIFTS, Dimensions, Rows, View, WholeBatch
from tests.cases import each
from tests.views import assert_close, assert_reads_exactly, differences, log_softmax, normal

C = 3
LABELS = torch.tensor([0, 2, 1, 1])
N = len(LABELS)
JOINT = torch.cat([LABELS + C * shift for shift in range(SHIFTS)])
ALL = torch.arange(len(JOINT))
# Of two devices each has its rows of every block.
DEVICES = tuple(torch.cat([block * N + torch.arange(first, N, 2) for block in range(SHIFTS)]) for first in (0, 1))


def csi_joint(weight: float = 1.0) -> CSIJoint:
    term = CSIJoint(Dimensions(C, 8, 4), weight=weight)
    term.name = "csi_joint"
    return term


def loss(joint: Tensor, own: Tensor = ALL) -> Tensor:
    shifted = WholeBatch(Rows(joint=joint), JOINT, own, 1)
    found = csi_joint().losses(View(id=Rows(), labels=LABELS[own[: len(own) // SHIFTS]], kept={}, shifted=shifted))
    assert set(found) == {"csi_joint"}
    return found["csi_joint"]


def naive(joint: list, own: Tensor = ALL) -> float:
    """Row s N + i is image i under shift s, whose place among the outputs is y + C s."""
    total = 0.0
    for place in own.tolist():
        shift, image = divmod(place, N)
        total -= log_softmax(joint[place])[int(LABELS[image]) + C * shift]
    return total / len(own)


@each("own", [ALL, *DEVICES, torch.tensor([0, 5, 6, 15])])
def test_it_is_the_mean_over_own_rows_of_the_cross_entropy_of_class_and_shift(own: Tensor) -> None:
    joint = normal(len(JOINT), C * SHIFTS)
    assert loss(joint, own).item() == pytest.approx(naive(joint.tolist(), own), abs=1e-12)


def test_it_trains_the_outputs_of_every_shift() -> None:
    joint = normal(len(JOINT), C * SHIFTS).requires_grad_()
    loss(joint).backward()
    assert_close(joint.grad, differences(naive, joint))


def test_rows_of_other_devices_get_no_gradient() -> None:
    joint = normal(len(JOINT), C * SHIFTS).requires_grad_()
    loss(joint, DEVICES[0]).backward()
    assert joint.grad is not None
    assert joint.grad[DEVICES[1]].abs().max() == 0
    assert joint.grad[DEVICES[0]].abs().amax(1).min() > 1e-3


def test_two_devices_have_the_mean_and_the_gradient_of_one() -> None:
    joint, apart = (normal(len(JOINT), C * SHIFTS).requires_grad_() for _ in range(2))
    halves = [loss(apart, own) for own in DEVICES]
    assert halves[0].item() != pytest.approx(halves[1].item(), abs=1e-3)
    one, two = loss(joint), torch.stack(halves).mean()
    torch.testing.assert_close(two, one, atol=1e-12, rtol=0)
    one.backward()
    two.backward()
    assert_close(apart.grad, joint.grad, 1e-12)


def test_it_reads_turned_joint_outputs_alone() -> None:
    assert_reads_exactly(csi_joint(), LABELS, {"joint": normal(N, C * SHIFTS)}, {}, {})
    assert (CSIJoint.reads, CSIJoint.reads_whole, CSIJoint.reads_outliers, CSIJoint.views) == ((), (), (), 1)
    assert CSIJoint.reads_shifted == ("joint",)
    with pytest.raises(LookupError, match="declare reads_shifted"):
        csi_joint().losses(View(id=Rows(), labels=LABELS, kept={}))


def test_it_has_the_weight_of_the_term() -> None:
    assert csi_joint(weight=0.5).weights() == {"csi_joint": 0.5}
