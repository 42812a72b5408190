"""The losses of a discriminator's logits against loops, torch's binary cross-entropy and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import BCEWithLogitsLoss

from ood_lab.loss.adversarial import discriminator_loss, generator_loss
from tests.cases import each
from tests.views import assert_close, differences, normal


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def naive_discriminator(real: list, made: list) -> float:
    """Binary cross-entropy with label 1 for real images, plus that with label 0 for made ones."""
    of_real = sum(-math.log(probability(x)) for x in real) / len(real)
    of_made = sum(-math.log(1 - probability(x)) for x in made) / len(made)
    return of_real + of_made


def naive_generator(made: list) -> float:
    """Binary cross-entropy with label 1 for made images."""
    return sum(-math.log(probability(x)) for x in made) / len(made)


SIZES = [(6, 6), (1, 1), (7, 3), (2, 9)]


@each(("real", "made"), SIZES)
def test_both_losses_match_the_loops_each_side_a_mean_of_its_own(real: int, made: int) -> None:
    of_real, of_made = 3 * normal(real), 3 * normal(made, seed=1)
    expected = naive_discriminator(of_real.tolist(), of_made.tolist())
    assert discriminator_loss(of_real, of_made).item() == pytest.approx(expected, abs=1e-12)
    assert generator_loss(of_made).item() == pytest.approx(naive_generator(of_made.tolist()), abs=1e-12)


@each(("real", "made"), SIZES)
def test_both_losses_are_torchs_binary_cross_entropy_with_logits(real: int, made: int) -> None:
    of_real, of_made, loss = 8 * normal(real), 8 * normal(made, seed=1), BCEWithLogitsLoss()
    expected = loss(of_real, torch.ones_like(of_real)) + loss(of_made, torch.zeros_like(of_made))
    torch.testing.assert_close(discriminator_loss(of_real, of_made), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(generator_loss(of_made), loss(of_made, torch.ones_like(of_made)), atol=1e-12, rtol=0)


def test_gradients_match_finite_differences_and_the_formula() -> None:
    real, made = (2 * normal(5)).requires_grad_(), (2 * normal(4, seed=1)).requires_grad_()
    discriminator_loss(real, made).backward()
    assert_close(real.grad, differences(lambda rows: naive_discriminator(rows, made.tolist()), real))
    assert_close(made.grad, differences(lambda rows: naive_discriminator(real.tolist(), rows), made))
    assert_close(real.grad, (real.detach().sigmoid() - 1) / 5, 1e-12)
    assert_close(made.grad, made.detach().sigmoid() / 4, 1e-12)
    made.grad = None
    generator_loss(made).backward()
    assert_close(made.grad, differences(naive_generator, made))
    assert_close(made.grad, (made.detach().sigmoid() - 1) / 4, 1e-12)


def test_a_discriminator_that_does_not_know_has_the_loss_2_log_2() -> None:
    nothing = torch.zeros(3, dtype=torch.float64)
    assert discriminator_loss(nothing, nothing).item() == pytest.approx(2 * math.log(2), abs=1e-12)
    assert generator_loss(nothing).item() == pytest.approx(math.log(2), abs=1e-12)


def test_where_the_discriminator_is_sure_of_a_fake_the_generator_still_learns() -> None:
    made = torch.full((4,), -40.0, dtype=torch.float64, requires_grad=True)
    generator_loss(made).backward()
    torch.testing.assert_close(made.grad, torch.full_like(made, -1 / 4), atol=1e-12, rtol=0)


@each(("right", "expected"), [(True, 0.0), (False, 1e4)])
def test_huge_logits_are_finite(right: bool, expected: float) -> None:
    sign = 1.0 if right else -1.0
    real, made = (torch.tensor([side * sign * 1e4], requires_grad=True) for side in (1, -1))
    found: Tensor = discriminator_loss(real, made)
    found.backward()
    assert found.item() == pytest.approx(2 * expected)
    assert real.grad is not None
    assert made.grad is not None
    assert [real.grad.item(), made.grad.item()] == ([0, 0] if right else [-1, 1])
    assert generator_loss(torch.tensor([sign * 1e4])).item() == pytest.approx(expected)
