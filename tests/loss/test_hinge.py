"""The hinge losses of adversarial training against loops, and where their gradients end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ood_lab.loss.hinge import discriminator_hinge, generator_hinge
from tests.cases import each
from tests.views import assert_close, differences, normal

REAL, MADE = [-2.0, 0.5, 1.5, 3.0, 0.9], [-3.0, -0.5, 0.25]


def tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def naive(real: list[float], made: list[float]) -> float:
    of_real = sum(1 - score for score in real if score < 1) / len(real)
    of_made = sum(1 + score for score in made if score > -1) / len(made)
    return of_real + of_made


@each(("real", "made"), [(5, 3), (1, 8), (8, 1), (50, 50)])
def test_they_match_the_loops(real: int, made: int) -> None:
    of_real, of_made = 2 * normal(real), 2 * normal(made, seed=1)
    expected = naive(of_real.tolist(), of_made.tolist())
    assert discriminator_hinge(of_real, of_made).item() == pytest.approx(expected, abs=1e-12)
    assert generator_hinge(of_made).item() == pytest.approx(-sum(of_made.tolist()) / made, abs=1e-12)


def test_each_side_is_a_mean_over_its_own_scores() -> None:
    assert discriminator_hinge(tensor([0.0, 2.0, 2.0, 2.0]), tensor([-2.0])).item() == 0.25
    assert discriminator_hinge(tensor([2.0]), tensor([0.0, -2.0])).item() == 0.5
    assert discriminator_hinge(tensor([0.0]), tensor([0.0])).item() == 2.0


def test_gradients_match_finite_differences() -> None:
    real, made = tensor(REAL).requires_grad_(), tensor(MADE).requires_grad_()
    discriminator_hinge(real, made).backward()
    assert_close(real.grad, differences(lambda x: naive(x, MADE), real))
    assert_close(made.grad, differences(lambda x: naive(REAL, x), made))
    assert real.grad.tolist() == [-0.2, -0.2, 0.0, 0.0, -0.2]
    assert made.grad[0] == 0
    fooled = tensor(MADE).requires_grad_()
    generator_hinge(fooled).backward()
    assert fooled.grad.tolist() == pytest.approx([-1 / 3] * 3, abs=1e-15)


def test_scores_far_on_the_right_side_cost_nothing_but_the_generator_is_always_pulled() -> None:
    assert discriminator_hinge(tensor([1.0, 1e6]), tensor([-1.0, -1e6])).item() == 0
    assert generator_hinge(tensor([1e6, 3e6])).item() == -2e6
