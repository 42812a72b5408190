"""CSI's head: joint outputs of classes and shifts, and what detectors are given of turned images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ood_lab.head.shifts import Shifts
from ood_lab.parts import SHIFTS
from tests.cases import each
from tests.views import dot, normal

WIDTH, C, P, B = 6, 3, 4, 5


def head(projects: bool = True) -> Shifts:
    torch.manual_seed(0)
    return Shifts(WIDTH, projects, C, projection_dim=P).double()


def affine(layer: nn.Module, row: list) -> list[float]:
    assert isinstance(layer, nn.Linear)
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return [dot(row, w) + b for w, b in rows]


def projected(made: Shifts, row: list) -> list[float]:
    """Two linear layers with a ReLU between them."""
    assert made.projector is not None
    first, _, last = made.projector
    return affine(last, [max(x, 0.0) for x in affine(first, row)])


def as_tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_joint_outputs_are_one_linear_layer_with_an_output_for_each_class_and_shift() -> None:
    made, features = head(), normal(B, WIDTH)
    found = made.added(features)
    assert set(found) == {"joint"}
    expected = as_tensor([affine(made.joint, row) for row in features.tolist()])
    assert found["joint"].shape == expected.shape == (B, C * 4)
    torch.testing.assert_close(found["joint"], expected, atol=1e-12, rtol=0)


def test_detectors_are_given_the_projection_of_each_turn_with_its_norm() -> None:
    made, features = head(), normal(SHIFTS, B, WIDTH)
    shifts = made.tested_turned(features)["shifts"]
    of = features.tolist()
    expected = as_tensor([[projected(made, of[s][b]) for s in range(SHIFTS)] for b in range(B)])
    assert shifts.shape == (B, SHIFTS, P)
    torch.testing.assert_close(shifts.double(), expected, atol=1e-6, rtol=0)
    norms = [math.sqrt(dot(row, row)) for image in expected.tolist() for row in image]
    assert max(norms) > 1.1 * min(norms)
    assert min(abs(norm - 1) for norm in norms) > 1e-3


def test_the_ensemble_of_a_class_is_the_mean_over_turns_of_its_logit_under_each() -> None:
    made, features = head(), normal(SHIFTS, B, WIDTH)
    joint = made.tested_turned(features)["joint"]
    of = features.tolist()
    expected = []
    for b in range(B):
        logits = [affine(made.joint, of[s][b]) for s in range(SHIFTS)]
        expected.append([sum(logits[s][y + C * s] for s in range(SHIFTS)) / SHIFTS for y in range(C)])
    assert joint.shape == (B, C)
    torch.testing.assert_close(joint.double(), as_tensor(expected), atol=1e-6, rtol=0)


@each("rows", [1, SHIFTS])
def test_a_batch_as_small_as_one_image_or_as_large_as_the_turns_is_no_exception(rows: int) -> None:
    made, features = head(), normal(SHIFTS, B, WIDTH)
    whole, some = made.tested_turned(features), made.tested_turned(features[:, :rows])
    for name in Shifts.gives:
        torch.testing.assert_close(some[name], whole[name][:rows], atol=1e-6, rtol=0)


def test_it_gives_what_it_says() -> None:
    assert Shifts.gives == ("shifts", "joint")
    assert set(head().tested_turned(normal(SHIFTS, B, WIDTH))) == {"shifts", "joint"}


def test_beside_the_joint_layer_it_has_the_projector_of_unit_norm_projections() -> None:
    made, features = head(), normal(B, WIDTH)
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {"projector", "joint"}
    for row, z in zip(features.tolist(), made.project(features).tolist(), strict=True):
        plain = projected(made, row)
        norm = math.sqrt(dot(plain, plain))
        assert z == pytest.approx([x / norm for x in plain], abs=1e-6)
