"""CSI's head: joint outputs of classes and shifts, and what detectors are given of turned images."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ood_lab.head.shifts import Shifts
from ood_lab.parts import SHIFTS
from tests.views import dot, normal

WIDTH, C, P, B = 6, 3, 4, 5


def head() -> Shifts:
    torch.manual_seed(0)
    return Shifts(WIDTH, True, C, projection_dim=P).double()


def test_the_joint_outputs_are_one_linear_layer() -> None:
    made, features = head(), normal(B, WIDTH)
    found = made.added(features)["joint"]
    weight, bias = made.joint.weight.tolist(), made.joint.bias.tolist()
    expected = [[dot(row, w) + b for w, b in zip(weight, bias, strict=True)] for row in features.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found.shape == (B, C * SHIFTS)


def test_detectors_are_given_projections_of_each_turn_and_the_ensemble_of_the_joint_logits() -> None:
    made, features = head(), normal(SHIFTS, B, WIDTH)
    seen = made.tested_turned(features)
    assert set(seen) == set(Shifts.gives)
    assert made.projector is not None
    for b in range(B):
        for s in range(SHIFTS):
            torch.testing.assert_close(seen["shifts"][b, s].double(), made.projector(features[s, b]), atol=1e-6, rtol=0)
        for c in range(C):
            logits = [float(made.joint(features[s, b])[c + C * s]) for s in range(SHIFTS)]
            assert abs(float(seen["joint"][b, c]) - sum(logits) / SHIFTS) < 1e-12
    assert not torch.allclose(seen["shifts"], F.normalize(seen["shifts"], dim=2))
