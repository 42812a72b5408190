"""The density that chains sample, and the ID probability of the margin, against loops written from the equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import iv
from torch import Tensor
from torch.nn import functional as F

from ood_lab.sampling.oodness import (
    ROWS,
    Density,
    _all_classes,
    _class_by_class,
    gathered_search,
    negative_log_id_probability,
    neighbour_search,
    potential_and_gradient,
    sorted_search,
)
from tests.cases import each

Array = np.ndarray


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def clusters(classes: int, rows: int, dim: int, spread: float = 0.3, seed: int = 0) -> Tensor:
    return F.normalize(unit(classes, 1, dim, seed=seed) + spread * normal(classes, rows, dim, seed=seed + 1), dim=-1)


# The equations, one point at a time.


def kth_neighbour_naive(z: Array, rows: Array, k: int) -> Array:
    distances = [math.sqrt(sum((a - b) ** 2 for a, b in zip(z, row, strict=True))) for row in rows]
    return rows[sorted(range(len(rows)), key=distances.__getitem__)[k - 1]]


def oodness_naive(z: Array, neighbours: list[Array]) -> float:
    """Equation 1 for each class, and their mean."""
    return sum(math.sqrt(sum((a - b) ** 2 for a, b in zip(z, n, strict=True))) for n in neighbours) / len(neighbours)


def potential_naive(z: Array, neighbours: list[Array]) -> float:
    """Equation 2."""
    return -math.log(oodness_naive(z, neighbours))


def gradient_naive(z: Array, neighbours: list[Array]) -> Array:
    """The derivative of equation 2: -1 / P * 1/2 * sum of the unit vectors from the neighbours to z."""
    total = np.zeros_like(z)
    for n in neighbours:
        total += (z - n) / np.sqrt(((z - n) ** 2).sum())
    return -total / 2 / oodness_naive(z, neighbours)


def surprise_naive(z: Array, bank: Array, kappa: float, density: str, k: int) -> float:
    """-log max_c P_c(z): equations 10 to 12 with the normaliser, or what "released" stands for."""
    dim = len(z)
    normaliser = kappa ** (dim / 2 - 1) / ((2 * math.pi) ** (dim / 2) * iv(dim / 2 - 1, kappa))
    if density == "paper":
        densities = [sum(normaliser * math.exp(kappa * float(z @ x)) for x in rows) / len(rows) for rows in bank]
        return -math.log(max(densities) / sum(densities))
    means = []
    for rows in bank:
        kernels = sorted((normaliser * math.exp(kappa * float(z @ x)) for x in rows), reverse=True)
        means.append(sum(kernels[:k]) / len(kernels[:k]) / kernels[0])
    weights = [math.exp(m) for m in means]
    return -math.log(max(weights) / sum(weights))


# Potential, gradient, neighbours.


def test_oodness_potential_and_gradient_match_the_loop() -> None:
    z, neighbours = unit(8, 6), unit(8, 2, 6, seed=1)
    energy, gradient = potential_and_gradient(z, neighbours)
    for i in range(8):
        pair = list(neighbours[i].numpy())
        assert float((-energy[i]).exp()) == pytest.approx(oodness_naive(z[i].numpy(), pair), abs=1e-12)
        assert float(energy[i]) == pytest.approx(potential_naive(z[i].numpy(), pair), abs=1e-12)
        np.testing.assert_allclose(gradient[i].numpy(), gradient_naive(z[i].numpy(), pair), atol=1e-12)


def test_gradient_matches_finite_differences_with_the_neighbours_fixed() -> None:
    z, neighbours, h = unit(4, 6).numpy(), unit(4, 2, 6, seed=1), 1e-6
    gradient = potential_and_gradient(torch.from_numpy(z), neighbours)[1]
    for i in range(4):
        pair = list(neighbours[i].numpy())
        for j in range(6):
            e = h * np.eye(6)[j]
            slope = (potential_naive(z[i] + e, pair) - potential_naive(z[i] - e, pair)) / (2 * h)
            assert float(gradient[i, j]) == pytest.approx(slope, abs=1e-8)


def test_gradient_is_finite_on_top_of_a_neighbour() -> None:
    neighbours = unit(1, 2, 6)
    assert potential_and_gradient(neighbours[:, 0].clone(), neighbours)[1].isfinite().all()


@each("kind", [neighbour_search, sorted_search, gathered_search])
@each("k", [1, 2, 7, 12])
def test_neighbour_search_matches_a_sort_for_each_chain_and_class(
    k: int, kind: Callable[..., Callable[[Tensor], Tensor]]
) -> None:
    bank, z = clusters(5, 12, 6), unit(9, 6, seed=4)
    pairs = torch.tensor([[0, 1], [1, 0], [4, 2], [0, 1], [2, 4], [4, 0], [1, 4], [0, 4], [2, 1]])  # class 3 is unasked
    search = kind(bank, pairs, k)
    for points in (z, unit(9, 6, seed=5)):  # one function serves many calls
        found = search(points)
        for i in range(9):
            for member in range(2):
                expected = kth_neighbour_naive(points[i].numpy(), bank[pairs[i, member]].numpy(), k)
                np.testing.assert_array_equal(found[i, member].numpy(), expected)


# ID probability.


@each("kappa", [0.5, 2.0, 20.0])
@each(("density", "k"), [("paper", 5), ("released", 5), ("released", 1), ("released", 99)])
def test_negative_log_id_probability_matches_the_loop(density: str, k: int, kappa: float) -> None:
    bank, z = clusters(4, 12, 6), unit(7, 6, seed=4)
    got = negative_log_id_probability(z, bank, kappa, density=density, k=k)
    for i in range(7):
        expected = surprise_naive(z[i].numpy(), bank.numpy(), kappa, density, k)
        assert float(got[i]) == pytest.approx(expected, abs=1e-10)


@each("density", ["paper", "released"])
def test_one_product_for_all_classes_gives_what_one_for_each_does(density: Density) -> None:
    bank, z = clusters(4, 12, 6), unit(7, 6, seed=4)
    one = _all_classes(z, bank, 2.0, density, 5)
    each = _class_by_class(z, bank, 2.0, density, 5)
    torch.testing.assert_close(one.log_softmax(1), each.log_softmax(1), atol=1e-12, rtol=0)


@each("density", ["paper", "released"])
def test_negative_log_id_probability_does_not_depend_on_how_points_are_blocked(density: str) -> None:
    bank, z = clusters(3, 12, 6), unit(2 * ROWS + 3, 6, seed=4)
    together = negative_log_id_probability(z, bank, 2.0, density=density, k=4)
    alone = torch.cat([negative_log_id_probability(row[None], bank, 2.0, density=density, k=4) for row in z])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)


def test_paper_id_probability_is_one_class_share_and_released_is_almost_flat() -> None:
    bank = clusters(4, 12, 6, spread=0.05)
    on_class = F.normalize(bank[0].mean(0, keepdim=True), dim=1)
    assert float(negative_log_id_probability(on_class, bank, 50.0)) < 0.05
    released = negative_log_id_probability(unit(200, 6), bank, 2.0, density="released", k=5)
    assert released.max() <= math.log(4) + 1e-12
    assert released.min() > math.log(4) - 0.25
