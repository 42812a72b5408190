"""The Fréchet distance against scipy's square root of a matrix, and where its value is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ood_lab.evaluation.frechet import frechet_distance
from tests.cases import each


def naive(first: np.ndarray, second: np.ndarray) -> float:
    root = sqrtm(np.cov(first.T) @ np.cov(second.T))
    gap = first.mean(0) - second.mean(0)
    return float(gap @ gap + np.trace(np.cov(first.T) + np.cov(second.T) - 2 * np.real(root)))


@each(("rows", "more"), [(50, 70), (6, 40), (3, 4)])
def test_it_is_that_of_two_normal_distributions(rows: int, more: int) -> None:
    draw = np.random.default_rng(rows)
    first, second = draw.normal(size=(rows, 5)), 2 + draw.normal(size=(more, 5)) @ draw.normal(size=(5, 5))
    found = frechet_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(naive(first, second), rel=1e-6, abs=1e-6)


def test_equal_rows_are_at_no_distance_and_moved_ones_at_the_square_of_the_move() -> None:
    rows = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(rows, rows[torch.randperm(40)]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + torch.tensor([3.0, 0, 4.0, 0])) == pytest.approx(25, rel=1e-5)


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 and 5 rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
