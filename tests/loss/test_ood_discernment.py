"""Each form of the discernment loss against loops, and where its minimum lies."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.loss.ood_discernment import equidistant, negatives, paper_eq7
from tests.cases import each

TEMPERATURES = [0.1, 0.5, 1.0]


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def mean_log_softmax(z: Tensor, mu: Tensor, scale: float) -> float:
    """1/K sum_i 1/C sum_j log softmax_j(scale z_i . mu_j)."""
    total = 0.0
    for row in z:
        weights = [math.exp(scale * dot(row, other)) for other in mu]
        total += sum(math.log(w / sum(weights)) for w in weights) / len(mu)
    return total / len(z)


def simplex(classes: int, dim: int) -> Tensor:
    """Prototypes as far apart as they can be; they sum to zero."""
    corners = torch.zeros(classes, dim, dtype=torch.float64)
    corners[:, :classes] = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return F.normalize(corners, dim=1)


def descend(start: Tensor, loss: Callable[[Tensor], Tensor], steps: int = 800) -> Tensor:
    free = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(F.normalize(free, dim=1)).backward()
        optimizer.step()
    return F.normalize(free.detach(), dim=1)


@each("temperature", TEMPERATURES)
def test_equidistant_is_the_negated_mean_log_softmax_of_negated_similarities(temperature: float) -> None:
    z, mu = unit(6, 5), unit(4, 5, seed=1)
    got = float(equidistant(z, mu, temperature))
    assert got == pytest.approx(-mean_log_softmax(z, mu, -1 / temperature), abs=1e-10)


@each("temperature", TEMPERATURES)
def test_paper_eq7_is_the_mean_log_softmax(temperature: float) -> None:
    z, mu = unit(6, 5), unit(4, 5, seed=1)
    assert float(paper_eq7(z, mu, temperature)) == pytest.approx(mean_log_softmax(z, mu, 1 / temperature), abs=1e-10)


@each("temperature", TEMPERATURES)
def test_negatives_is_the_contrast_of_the_own_prototype_with_all_outliers(temperature: float) -> None:
    z, labels, outliers, mu = unit(5, 4), torch.tensor([0, 2, 1, 2, 0]), unit(6, 4, seed=1), unit(3, 4, seed=2)
    total = 0.0
    for i in range(5):
        own = math.exp(dot(z[i], mu[int(labels[i])]) / temperature)
        total += math.log(own / (own + sum(math.exp(dot(z[i], o) / temperature) for o in outliers)))
    assert float(negatives(z, labels, outliers, mu, temperature)) == pytest.approx(-total / 5, abs=1e-10)


def test_gradients_match_finite_differences() -> None:
    z, mu, ids = unit(3, 4).requires_grad_(), unit(3, 4, seed=1).requires_grad_(), unit(5, 4, seed=2).requires_grad_()
    labels = torch.tensor([0, 2, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda a, b: equidistant(a, b, 0.3), (z, mu))
    assert torch.autograd.gradcheck(lambda a, b: paper_eq7(a, b, 0.3), (z, mu))
    assert torch.autograd.gradcheck(lambda i, a, b: negatives(i, labels, a, b, 0.3), (ids, z, mu))


@each("classes", [2, 4, 10])
def test_equidistant_is_least_and_log_c_at_equal_cosines(classes: int) -> None:
    mu = torch.eye(classes, classes + 2, dtype=torch.float64)
    inside = F.normalize(mu.sum(0, keepdim=True), dim=1)
    outside = torch.eye(classes + 2, dtype=torch.float64)[-1:]
    for point in (inside, -inside, outside):
        assert float(equidistant(point, mu, 0.1)) == pytest.approx(math.log(classes), abs=1e-10)
    for row in unit(200, classes + 2):
        assert float(equidistant(row[None], mu, 0.1)) > math.log(classes)


def test_descent_under_equidistant_ends_where_all_cosines_are_equal() -> None:
    mu = unit(4, 8, seed=1)
    start = F.normalize(unit(20, 8) + mu[torch.arange(20) % 4], dim=1)
    end = descend(start, lambda z: equidistant(z, mu, 0.1) * len(start))
    cosines = end @ mu.T
    assert (cosines.amax(1) - cosines.amin(1)).max() < 0.02
    assert (start @ mu.T).amax(1).sub((start @ mu.T).amin(1)).min() > 0.2
    assert float(equidistant(end, mu, 0.1)) == pytest.approx(math.log(4), abs=1e-2)


def test_descent_under_paper_eq7_ends_on_a_prototype() -> None:
    mu = simplex(4, 8)
    start = unit(20, 8)
    end = descend(start, lambda z: paper_eq7(z, mu, 0.1) * len(start))
    assert (start @ mu.T).amax(1).max() < 0.95
    assert (end @ mu.T).amax(1).min() > 0.99


def test_equal_cosines_are_the_worst_point_of_paper_eq7() -> None:
    mu = simplex(4, 8)
    equal = torch.eye(8, dtype=torch.float64)[-1:]
    assert float(paper_eq7(equal, mu, 0.1)) == pytest.approx(-math.log(4), abs=1e-10)
    for row in unit(200, 8):
        assert float(paper_eq7(row[None], mu, 0.1)) < -math.log(4)
