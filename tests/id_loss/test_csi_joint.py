"""The joint head's cross-entropy over classes and shifts."""

from __future__ import annotations

import pytest
import torch

from ood_lab.id_loss.csi_joint import CSIJoint
from ood_lab.parts import SHIFTS, Dimensions, Rows, View, WholeBatch
from tests.views import log_softmax, normal

C = 3
LABELS = torch.tensor([0, 2, 1, 1])
JOINT = torch.cat([LABELS + C * shift for shift in range(SHIFTS)])


def loss(joint: torch.Tensor, own: torch.Tensor) -> float:
    shifted = WholeBatch(Rows(joint=joint), JOINT, own, 1)
    return float(CSIJoint(Dimensions(C, 8, 4)).loss(View(id=Rows(), labels=LABELS, kept={}, shifted=shifted)))


def test_it_is_the_mean_over_own_rows_of_the_cross_entropy_of_class_and_shift() -> None:
    joint = normal(len(JOINT), C * SHIFTS)
    for own in (torch.arange(len(JOINT)), torch.tensor([0, 5, 6, 15])):
        losses = [-log_softmax(joint[i].tolist())[int(JOINT[i])] for i in own.tolist()]
        assert loss(joint, own) == pytest.approx(sum(losses) / len(losses), abs=1e-12)
