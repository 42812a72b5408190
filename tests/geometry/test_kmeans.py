"""K-means against Lloyd's algorithm in loops, exact laws of its first centres, and scikit-learn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

import ood_lab.geometry.kmeans
from ood_lab.geometry.kmeans import first_centres, inertia, kmeans, kmeans_faiss
from tests.cases import each
from tests.method.test_base import NoWaiting
from tests.views import normal

Points = list[list[float]]
ENGINES = [kmeans, kmeans_faiss]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def groups(count: int, size: int, dim: int, apart: float = 20.0, spread: float = 0.3, seed: int = 0) -> Tensor:
    """Groups of points around far centres, one group after the other."""
    points = apart * normal(count, 1, dim, seed=seed) + spread * normal(count, size, dim, seed=seed + 1)
    return points.flatten(0, 1)


def squared(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def nearest_naive(points: Points, centres: Points) -> list[int]:
    return [min(range(len(centres)), key=lambda k: squared(point, centres[k])) for point in points]


def mean_naive(points: Points) -> list[float]:
    return [sum(column) / len(points) for column in zip(*points, strict=True)]


def lloyd_naive(points: Points, centres: Points, iterations: int) -> list[int]:
    """The n-th cluster without points is moved to the point that is n-th farthest from its own centre."""
    labels = nearest_naive(points, centres)
    for _ in range(iterations):
        far = sorted(range(len(points)), key=lambda i: -squared(points[i], centres[labels[i]]))
        moved, empty = [], 0
        for k in range(len(centres)):
            members = [point for point, label in zip(points, labels, strict=True) if label == k]
            moved.append(mean_naive(members) if members else points[far[empty]])
            empty += not members
        centres = moved
        labels = nearest_naive(points, centres)
    return labels


def inertia_naive(points: Points, labels: list[int]) -> float:
    total = 0.0
    for k in set(labels):
        members = [point for point, label in zip(points, labels, strict=True) if label == k]
        total += sum(squared(point, mean_naive(members)) for point in members)
    return total


# Lloyd's iterations.


@each("iterations", [0, 1, 2, 10])
@each(("count", "dim", "clusters"), [(60, 3, 5), (40, 2, 7), (25, 6, 25), (30, 4, 1)])
def test_labels_are_those_of_lloyds_loop_from_the_same_first_centres(
    count: int, dim: int, clusters: int, iterations: int
) -> None:
    for seed in range(3):
        points = normal(count, dim, seed=seed)
        centres = first_centres(points, clusters, seeded(seed))
        got = kmeans(points, clusters, seeded(seed), iterations)
        assert got.dtype == torch.int64
        assert got.tolist() == lloyd_naive(points.tolist(), centres.tolist(), iterations)


def test_float32_gives_the_labels_of_the_loop_where_groups_are_apart() -> None:
    points = groups(6, 12, 8).float()
    got = kmeans(points, 6, seeded())
    centres = first_centres(points, 6, seeded())
    assert got.tolist() == lloyd_naive(points.tolist(), centres.tolist(), 10)


def test_ten_iterations_are_the_default() -> None:
    points = normal(2000, 2)
    assert torch.equal(kmeans(points, 20, seeded()), kmeans(points, 20, seeded(), 10))
    assert not torch.equal(kmeans(points, 20, seeded()), kmeans(points, 20, seeded(), 9))
    assert not torch.equal(kmeans(points, 20, seeded()), kmeans(points, 20, seeded(), 11))


@each(("count", "dim", "clusters"), [(200, 3, 8), (100, 5, 20), (150, 1, 6)])
def test_run_to_its_end_every_point_is_at_the_nearest_mean_of_a_cluster(count: int, dim: int, clusters: int) -> None:
    points = normal(count, dim)
    labels = kmeans(points, clusters, seeded(), 200).tolist()
    members = [[p for p, label in zip(points.tolist(), labels, strict=True) if label == k] for k in range(clusters)]
    assert all(members)
    assert nearest_naive(points.tolist(), [mean_naive(own) for own in members]) == labels


@each("dtype", [torch.float32, torch.float64])
def test_far_groups_are_found(dtype: torch.dtype) -> None:
    points = groups(7, 6, 5, spread=0.01).to(dtype)
    for seed in range(20):
        labels = kmeans(points, 7, seeded(seed)).view(7, 6)
        assert (labels == labels[:, :1]).all()
        assert sorted(labels[:, 0].tolist()) == list(range(7))


@each(
    "centres",
    [
        [[0.0, 0.0], [0.0, 0.0], [9.0, 9.0]],
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        [[500.0, 0.0], [1.0, 0.0], [-500.0, 0.0]],
        [[500.0, 0.0], [600.0, 0.0], [700.0, 0.0]],
    ],
)
@each("iterations", [1, 2, 10])
def test_empty_clusters_go_to_the_points_that_are_worst_off(
    centres: Points, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = 10 * normal(12, 2)
    start = torch.tensor(centres, dtype=torch.float64)
    monkeypatch.setattr(ood_lab.geometry.kmeans, "first_centres", lambda *_: start)
    assert len(set(nearest_naive(points.tolist(), centres))) < 3
    got = kmeans(points, 3, seeded(), iterations).tolist()
    assert got == lloyd_naive(points.tolist(), centres, iterations)
    assert set(got) == {0, 1, 2}


def test_stopping_early_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [normal(80, 3), groups(5, 8, 4), normal(30, 2).round(), torch.ones(9, 2), normal(6, 2)[[0, 1] * 8]]
    stopped = [kmeans(points, clusters, seeded(), 30) for points in cases for clusters in (1, 5, 8)]
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    going = [kmeans(points, clusters, seeded(), 30) for points in cases for clusters in (1, 5, 8)]
    assert [labels.tolist() for labels in stopped] == [labels.tolist() for labels in going]


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotEvenEqual(NoWaiting):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func.overloadpacket.__name__ != "equal", "equal waits for the device"
            return super().__torch_dispatch__(func, types, args, kwargs)

    monkeypatch.setattr(torch, "equal", lambda *_: False)  # only the CPU stops early
    points, draw = normal(50, 4).float(), seeded()
    with NotEvenEqual():
        kmeans(points, 6, draw)
        kmeans(points[:3], 6, draw)


# Few and equal points, and the generator: both engines.


@each("find", ENGINES)
@each("count", [1, 2, 5])
def test_fewer_points_than_clusters_have_a_cluster_each(find: Callable[..., Tensor], count: int) -> None:
    labels = find(groups(count, 1, 3).float(), 8, seeded())
    assert sorted(labels.tolist()) == list(range(count))


@each("find", ENGINES)
@each("value", [0.0, 1.0, -3.0])
def test_equal_points_have_a_valid_and_common_cluster(find: Callable[..., Tensor], value: float) -> None:
    labels = find(torch.full((20, 4), value), 5, seeded())
    assert labels.shape == (20,)
    assert 0 <= int(labels.min()) == int(labels.max()) < 5


def test_fewer_different_points_than_clusters_are_told_apart() -> None:
    points = torch.tensor([[0.0, 0], [1, 0], [0, 1]])[torch.arange(30) % 3]
    labels = kmeans(points, 6, seeded())
    assert labels.tolist() == labels[:3].tolist() * 10
    assert len(set(labels.tolist())) == 3


@each("find", ENGINES)
def test_labels_depend_on_the_generator_alone_and_the_global_one_is_left_alone(find: Callable[..., Tensor]) -> None:
    points = normal(80, 3).float()
    torch.manual_seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = find(points, 8, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    torch.manual_seed(6)
    assert torch.equal(find(points, 8, seeded(1)), first)
    assert not torch.equal(find(points, 8, seeded(2)), first)
    draw = seeded(1)
    find(points, 8, draw)
    assert not torch.equal(find(points, 8, draw), first), "the generator moves on"


@each("find", ENGINES)
def test_points_are_left_as_they_were(find: Callable[..., Tensor]) -> None:
    points = normal(30, 3).float()
    find(points, 4, seeded())
    assert torch.equal(points, normal(30, 3).float())


# How good the clusters are.


def relu_like(seed: int) -> Tensor:
    return (normal(400, 16, seed=seed) - 0.3).relu() * (3 * normal(16, seed=seed + 9)).exp().clamp_max(3)


SETS: dict[str, Callable[[int], Tensor]] = {
    "clustered": lambda seed: groups(12, 6, 16, seed=2 * seed),
    "overlapping": lambda seed: groups(12, 30, 16, apart=0.5, spread=1.0, seed=2 * seed),
    "relu": relu_like,
    "unit": lambda seed: F.normalize(normal(400, 16, seed=seed), dim=1),
    "unit relu": lambda seed: F.normalize(relu_like(seed), dim=1),
}


@each("name", SETS)
def test_inertia_is_within_six_percent_of_scikit_learn(name: str) -> None:
    for seed in range(4):
        points = SETS[name](seed)
        best = KMeans(12, n_init=3, random_state=0).fit(points.numpy()).inertia_
        got = [float(inertia(points, kmeans(points.float(), 12, seeded(draw)))) for draw in range(3)]
        assert min(got) < 1.06 * best


@each("name", ["relu", "unit", "unit relu"])
def test_inertia_of_faiss_is_within_six_percent_of_scikit_learn(name: str) -> None:
    points = SETS[name](0)
    best = KMeans(12, n_init=3, random_state=0).fit(points.numpy()).inertia_
    got = [float(inertia(points, kmeans_faiss(points, 12, seeded(draw)))) for draw in range(3)]
    assert min(got) < 1.06 * best


@each("dtype", [torch.float32, torch.float64])
def test_faiss_tells_two_far_groups_apart_and_makes_as_many_clusters_as_asked(dtype: torch.dtype) -> None:
    points = groups(2, 15, 4).to(dtype)
    for seed in range(10):
        labels = kmeans_faiss(points, 2, seeded(seed)).view(2, 15)
        assert (labels == labels[:, :1]).all()
        assert sorted(labels[:, 0].tolist()) == [0, 1]
        assert set(kmeans_faiss(normal(60, 3), 12, seeded(seed)).tolist()) == set(range(12))


def test_faiss_uses_its_iterations() -> None:
    points = normal(500, 8)
    one, many = (float(inertia(points, kmeans_faiss(points, 12, seeded(), n))) for n in (1, 50))
    assert many < 0.97 * one


@each("labels", [[0, 0, 1, 1, 2, 2], [0, 3, 3, 0, 3, 5], [4] * 6, [0, 1, 2, 3, 4, 5]])
def test_inertia_matches_the_loop(labels: list[int]) -> None:
    points = normal(6, 3)
    got = float(inertia(points, torch.tensor(labels)))
    assert got == pytest.approx(inertia_naive(points.tolist(), labels), abs=1e-12)


# First centres.


def best_of_three_law(points: Points) -> dict[tuple[int, int], float]:
    """The chance of each (first, second) centre: of three tries by squared distance to the first the best is kept."""
    law: dict[tuple[int, int], float] = Counter()
    for first, start in enumerate(points):
        far = [squared(point, start) for point in points]
        left = [sum(min(far[i], squared(points[i], tried)) for i in range(len(points))) for tried in points]
        for tries in product(range(len(points)), repeat=3):
            kept = min(tries, key=left.__getitem__)
            law[first, kept] += math.prod(far[t] / sum(far) for t in tries) / len(points)
    return law


def test_two_first_centres_follow_the_law_of_the_best_of_three_tries() -> None:
    points = torch.tensor([[0.0, 0], [1, 0.2], [2.5, 1], [0.3, 3], [-1, -1.4]], dtype=torch.float64)
    law, draw, seen = best_of_three_law(points.tolist()), seeded(), Counter()
    for _ in range(3000):
        centres = first_centres(points, 2, draw)
        seen[tuple(points.tolist().index(centre) for centre in centres.tolist())] += 1
    pairs = [pair for pair, chance in law.items() if chance > 0]
    assert set(seen) <= set(pairs)
    assert chisquare([seen[pair] for pair in pairs], [3000 * law[pair] for pair in pairs]).pvalue > 1e-3


@each(("count", "clusters"), [(10, 10), (50, 5), (300, 7), (1, 1), (4, 3)])
def test_first_centres_are_different_points(count: int, clusters: int) -> None:
    points = normal(count, 3)
    for seed in range(10):
        centres = first_centres(points, clusters, seeded(seed))
        assert centres.dtype == points.dtype
        found = {points.tolist().index(centre) for centre in centres.tolist()}
        assert len(found) == clusters


@each("clusters", [2, 3])
def test_far_groups_have_a_first_centre_each_wherever_they_stand(clusters: int) -> None:
    points = groups(clusters, 400, 4, apart=1000.0)
    for seed in range(30):
        centres = first_centres(points, clusters, seeded(seed))
        assert sorted(torch.cdist(centres, points).argmin(1).div(400).long().tolist()) == list(range(clusters))


def test_first_centres_of_equal_points_are_that_point() -> None:
    assert torch.equal(first_centres(torch.ones(9, 2), 4, seeded()), torch.ones(4, 2))


def test_every_point_can_be_the_only_first_centre() -> None:
    points, seen = normal(20, 2), set()
    for seed in range(300):
        seen.add(tuple(first_centres(points, 1, seeded(seed))[0].tolist()))
    assert len(seen) == 20
