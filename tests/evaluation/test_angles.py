"""Separation, dispersion and compactness against loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ood_lab.evaluation.angles import (
    RELEASED_BATCH,
    Centroids,
    compactness,
    compactness_released,
    dispersion,
    id_angles,
    separation,
)
from tests.views import dot, normal, normalise

C, D = 4, 6


def clusters(rows: int, seed: int = 0, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Rows of any length around class directions."""
    labels = torch.arange(rows) % C
    lengths = 1 + 5 * torch.rand(rows, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lengths * (normal(C, D)[labels] + spread * normal(rows, D, seed=seed + 1)), labels


def centroids_of(rows: Tensor, labels: Tensor) -> list[list[float]]:
    found = []
    for c in range(C):
        mine = [normalise(row) for row, label in zip(rows.tolist(), labels.tolist(), strict=True) if label == c]
        found.append(normalise([sum(column) / len(mine) for column in zip(*mine, strict=True)]))
    return found


def angle(cosines: list[float]) -> float:
    return math.degrees(math.acos(sum(cosines) / len(cosines)))


TRAIN, LABELS = clusters(41)
MEANS = centroids_of(TRAIN, LABELS)


def test_centroids_are_unit_means_of_unit_rows() -> None:
    torch.testing.assert_close(Centroids(TRAIN, LABELS).values, torch.tensor(MEANS, dtype=torch.float64))


def test_separation_is_the_angle_of_the_mean_cosine_to_the_nearest_class() -> None:
    ood = normal(19, D, seed=7)
    expected = angle([max(dot(normalise(z), mu) for mu in MEANS) for z in ood.tolist()])
    assert separation(ood, Centroids(TRAIN, LABELS)) == pytest.approx(expected, abs=1e-9)


def test_dispersion_is_the_angle_of_the_mean_cosine_of_pairs_of_classes() -> None:
    expected = angle([dot(MEANS[i], MEANS[j]) for i in range(C) for j in range(C) if i != j])
    assert dispersion(Centroids(TRAIN, LABELS)) == pytest.approx(expected, abs=1e-9)


def test_compactness_is_the_angle_of_the_mean_cosine_to_the_own_class() -> None:
    test, labels = clusters(23, seed=3)
    expected = angle([dot(normalise(z), MEANS[y]) for z, y in zip(test.tolist(), labels.tolist(), strict=True)])
    assert compactness(test, labels, Centroids(TRAIN, LABELS)) == pytest.approx(expected, abs=1e-9)


def test_released_compactness_is_over_all_pairs_of_batches_sorted_by_class() -> None:
    test, labels = clusters(2 * RELEASED_BATCH + 30, seed=3)
    order = sorted(range(len(labels)), key=lambda i: int(labels[i]))
    total = 0.0
    for first in range(0, len(order), RELEASED_BATCH):
        batch = order[first : first + RELEASED_BATCH]
        rows = [normalise(test[i].tolist()) for i in batch]
        pairs = [dot(z, MEANS[int(labels[j])]) for z in rows for j in batch]
        total += len(batch) * sum(pairs) / len(pairs)
    expected = math.degrees(math.acos(total / len(order)))
    centroids = Centroids(TRAIN, LABELS)
    assert compactness_released(test, labels, centroids) == pytest.approx(expected, abs=1e-9)
    assert compactness_released(test, labels, centroids) > compactness(test, labels, centroids)


def test_orthogonal_classes_are_90_degrees_apart_and_rows_on_them_0() -> None:
    centroids = Centroids(3 * torch.eye(4), torch.arange(4))
    assert dispersion(centroids) == pytest.approx(90)
    assert compactness(torch.eye(4), torch.arange(4), centroids) == pytest.approx(0, abs=1e-5)
    assert separation(-torch.ones(2, 4), centroids) == pytest.approx(120)


def test_a_class_that_never_appears_has_no_centroid_and_its_rows_do_not_count() -> None:
    there = LABELS != 2
    some = Centroids(TRAIN[there], LABELS[there])
    assert len(some.values) == C - 1
    test, labels = clusters(23, seed=3)
    kept = labels != 2
    assert compactness(test, labels, some) == pytest.approx(compactness(test[kept], labels[kept], some), abs=1e-12)


def test_one_class_has_no_dispersion() -> None:
    one = Centroids(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64))
    assert math.isnan(dispersion(one))


def test_the_angles_of_the_id_set_by_name() -> None:
    names = [name for name, _ in id_angles(TRAIN, LABELS, Centroids(TRAIN, LABELS))]
    assert names == ["dispersion", "compactness", "compactness_released"]


def test_features_that_are_not_finite_have_no_angle() -> None:
    broken = TRAIN.clone()
    broken[0, 0] = math.nan
    centroids = Centroids(TRAIN, LABELS)
    assert math.isnan(separation(broken, centroids))
    assert math.isnan(compactness(broken, LABELS, centroids))
    assert all(math.isnan(value) for _, value in id_angles(broken, LABELS, Centroids(broken, LABELS)))
