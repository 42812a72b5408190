"""Near class pairs and their midpoints against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.synthesizer.base import class_midpoints, near_pairs
from ood_lab.synthesizer.midpoints import Midpoints
from tests.cases import each

Vector = list[float]


def bank_of(classes: int, rows: int, dim: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 1, dim, generator=draw, dtype=torch.float64)
    return F.normalize(centres + spread * torch.randn(classes, rows, dim, generator=draw, dtype=torch.float64), dim=2)


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normalise(a: Vector) -> Vector:
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def midpoints_naive(bank: Tensor, adjacent: int, unit_centroids: bool) -> list[tuple[int, int, Vector]]:
    """(u, v, b_uv) for each class u and each of its `adjacent` most similar classes v, nearest first."""
    means = []
    for rows in bank.tolist():
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        means.append(normalise(mean) if unit_centroids else mean)
    found = []
    for u, mean in enumerate(means):
        others = sorted((v for v in range(len(means)) if v != u), key=lambda v: -dot(mean, means[v]))
        near = others[:adjacent]
        found += [(u, v, normalise([x + y for x, y in zip(mean, means[v], strict=True)])) for v in near]
    return found


@each("centroids", ["unit", "raw"])
@each("adjacent", [1, 3, 5])
def test_midpoints_match_the_loop_over_classes(centroids: str, adjacent: int) -> None:
    bank = bank_of(6, 9, 7)
    points, pairs = class_midpoints(bank, adjacent, centroids)
    expected = midpoints_naive(bank, adjacent, centroids == "unit")
    assert pairs.tolist() == [[u, v] for u, v, _ in expected]
    for point, (_, _, b) in zip(points.tolist(), expected, strict=True):
        assert point == pytest.approx(b, abs=1e-12)


def test_unit_and_raw_centroids_differ_where_classes_are_unequally_compact() -> None:
    bank = torch.cat((bank_of(3, 9, 7, spread=0.1), bank_of(3, 9, 7, seed=1, spread=2.0)))
    unit, raw = (class_midpoints(bank, 5, centroids)[0] for centroids in ("unit", "raw"))
    assert (unit - raw).abs().max() > 1e-2


def test_adjacent_is_clipped_to_the_number_of_other_classes() -> None:
    bank = bank_of(4, 5, 6)
    assert len(class_midpoints(bank, 99)[0]) == 4 * 3
    assert torch.equal(class_midpoints(bank, 99)[0], class_midpoints(bank, 3)[0])


def test_no_class_is_paired_with_itself() -> None:
    pairs = near_pairs(-torch.eye(5) + 0.1, 4)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == 20


def test_mutually_near_classes_give_both_directed_pairs_and_the_same_midpoint_twice() -> None:
    means = F.normalize(torch.tensor([[1.0, 0.1, 0], [1, -0.1, 0], [0, 0.1, 1], [0, -0.1, 1]]), dim=1)
    points, pairs = class_midpoints(means[:, None], 1)
    assert pairs.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    torch.testing.assert_close(points[0], points[1])
    torch.testing.assert_close(points[0], torch.tensor([1.0, 0, 0]))


def test_sample_gives_unit_midpoints_and_their_first_class() -> None:
    bank = bank_of(6, 9, 7).float()
    outliers = Midpoints(adjacent=2).draw(bank, torch.Generator().manual_seed(0))
    assert outliers.values.shape == (12, 7)
    assert outliers.values.dtype == torch.float32
    torch.testing.assert_close(outliers.values.norm(dim=1), torch.ones(12))
    assert outliers.source_class.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert outliers.info == {}


def test_sample_carries_no_gradient_even_from_a_bank_that_does() -> None:
    bank = bank_of(4, 5, 6).requires_grad_()
    assert not Midpoints(adjacent=2).draw(bank, torch.Generator()).values.requires_grad
