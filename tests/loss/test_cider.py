"""CIDER's losses and the prototype update against loops over samples and classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.loss.cider import compactness, dispersion, update_prototypes
from tests.cases import each


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def some_labels(rows: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def update_naive(prototypes: Tensor, z: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """One sample after the other, in batch order."""
    rows = list(prototypes)
    for i in range(len(z)):
        c = int(labels[i])
        moved = momentum * rows[c] + (1 - momentum) * z[i]
        rows[c] = moved / moved.square().sum().sqrt()
    return torch.stack(rows)


@each("temperature", [0.1, 0.5, 1.0])
def test_compactness_matches_equation_22(temperature: float) -> None:
    z, mu, labels = unit(7, 5), unit(4, 5, seed=1), some_labels(7, 4)
    total = 0.0
    for i in range(7):
        weights = [math.exp(dot(z[i], mu[j]) / temperature) for j in range(4)]
        total += math.log(weights[int(labels[i])] / sum(weights))
    assert float(compactness(z, labels, mu, temperature)) == pytest.approx(-total / 7, abs=1e-10)


@each("temperature", [0.1, 0.5, 1.0])
@each("classes", [2, 6])
def test_dispersion_matches_equation_22(temperature: float, classes: int) -> None:
    mu = unit(classes, 5)
    total = 0.0
    for i in range(classes):
        inner = sum(math.exp(dot(mu[i], mu[j]) / temperature) for j in range(classes) if j != i)
        total += math.log(inner / (classes - 1))
    assert float(dispersion(mu, temperature)) == pytest.approx(total / classes, abs=1e-10)


def test_gradients_of_both_losses_match_finite_differences() -> None:
    z, mu, labels = unit(5, 4).requires_grad_(), unit(3, 4, seed=1).requires_grad_(), some_labels(5, 3)
    assert torch.autograd.gradcheck(lambda a, b: compactness(a, labels, b, 0.5), (z, mu))
    assert torch.autograd.gradcheck(lambda b: dispersion(b, 0.5), (mu,))


def test_dispersion_descent_drives_prototypes_apart() -> None:
    free = unit(3, 4).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        dispersion(F.normalize(free, dim=1), 0.5).backward()
        optimizer.step()
    cosines = (F.normalize(free, dim=1) @ F.normalize(free, dim=1).T).detach()
    torch.testing.assert_close(cosines, 1.5 * torch.eye(3, dtype=torch.float64) - 0.5, atol=1e-3, rtol=0)


@each("momentum", [0.0, 0.5, 0.95])
@each("rows", [1, 9, 40])
def test_prototype_update_matches_the_sample_loop_in_value_and_gradient(momentum: float, rows: int) -> None:
    mu, labels, weight = unit(5, 6, seed=1), some_labels(rows, 5), unit(5, 6, seed=2)
    z, z_naive = unit(rows, 6).requires_grad_(), unit(rows, 6).requires_grad_()
    got, expected = update_prototypes(mu, z, labels, momentum), update_naive(mu, z_naive, labels, momentum)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    assert z_naive.grad.abs().max() > 1e-4
    torch.testing.assert_close(z.grad, z_naive.grad, atol=1e-12, rtol=0)


def test_prototype_update_depends_on_the_order_of_samples_within_a_class() -> None:
    mu, z, labels = unit(1, 3, seed=1), unit(2, 3), torch.tensor([0, 0])
    forward, backward = (update_prototypes(mu, x, labels, 0.5) for x in (z, z.flip(0)))
    assert (forward - backward).abs().max() > 1e-3
    torch.testing.assert_close(backward, update_naive(mu, z.flip(0), labels, 0.5))


def test_classes_without_samples_keep_their_prototype_exactly() -> None:
    mu, labels = unit(5, 6, seed=1), torch.tensor([3, 1, 3])
    got = update_prototypes(mu, unit(3, 6), labels, 0.5)
    for c in (0, 2, 4):
        assert torch.equal(got[c], mu[c])
    for c in (1, 3):
        assert (got[c] - mu[c]).abs().max() > 1e-3


def test_updated_prototypes_have_unit_norm_and_the_given_ones_are_untouched() -> None:
    mu = unit(5, 6, seed=1)
    before = mu.clone()
    got = update_prototypes(mu, unit(30, 6), some_labels(30, 5), 0.9)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(5, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.equal(mu, before)


def test_zero_prototypes_become_the_first_sample_of_their_class() -> None:
    z = unit(2, 4)
    got = update_prototypes(torch.zeros(2, 4, dtype=torch.float64), z, torch.tensor([1, 0]), 0.95)
    torch.testing.assert_close(got, z.flip(0), atol=1e-12, rtol=0)
