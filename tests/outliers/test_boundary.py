"""BOOD's outliers: which embeddings are chosen and where they go, against loops; in which order; what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.errors import RunError
from ood_lab.outliers.base import LatentSpace, in_turn
from ood_lab.outliers.boundary import Boundary, selected
from ood_lab.sampling.boundary import Walk
from tests.cases import each
from tests.sampling.test_boundary import Arrival, loop
from tests.views import normal

D = 6
NAMES = ("ant", "bee", "cat", "dog")
SIZES = (34, 20, 13, 23)
TEMPERATURE = 0.2


def space(unit: bool = True, dtype: torch.dtype = torch.float64) -> LatentSpace:
    """Classes of several sizes in mixed order; some embeddings are misclassified, and long ones cross nothing."""
    n = sum(SIZES)
    gamma = F.normalize(normal(len(NAMES), D, seed=1), dim=1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(len(NAMES)).repeat_interleave(torch.tensor(SIZES))[order]
    h = (gamma[labels] + 0.4 * normal(n, D, seed=3)) * torch.linspace(0.5, 8, n, dtype=torch.float64)[:, None]
    lengths = torch.linspace(0.7, 1.3, len(NAMES), dtype=torch.float64)[:, None]
    return LatentSpace(h.to(dtype), labels, (gamma * lengths).to(dtype), unit, TEMPERATURE, NAMES)


OPTIONS: dict[str, Any] = {
    "alpha": 0.1, "max_steps": 10, "further_steps": 2, "share": 20.0, "scope": "per_class",
    "identification": "boundary", "displacement": "adversarial", "scale": None, "features": "raw",
    "drop_misclassified": True, "shard_items": 10, "seed": 5, "needs": {},
}  # fmt: skip


def maker(latent: LatentSpace | None = None, **changes: Any) -> Boundary:
    return Boundary(space() if latent is None else latent, **{**OPTIONS, **changes})


@cache
def arrivals(unit: bool = True, features: str = "raw", further: int = 2) -> list[Arrival]:
    latent = space(unit)
    rows = [row / row.norm() if features == "unit" else row for row in latent.embeddings]
    gamma = torch.stack([anchor / anchor.norm() if unit else anchor for anchor in latent.anchors])
    options: dict[str, Any] = {"step": 0.1, "max_steps": 10, "further": further}
    return [loop(row, int(y), gamma, TEMPERATURE, **options) for row, y in zip(rows, latent.labels, strict=True)]


def turns(rows: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The first row of each class, the second of each, and so on."""
    queues = [[row for row in rows if labels[row] == c] for c in range(len(NAMES))]
    return [queue[place] for place in range(len(labels)) for queue in queues if place < len(queue)]


def nearest(found: list[Arrival], share: float, scope: str = "per_class", drop: bool = True) -> list[int]:
    """The rows to choose, in turn."""
    labels = space().labels.tolist()
    allowed = [row for row, one in enumerate(found) if one.crossed and (one.count > 0 or not drop)]
    allowed.sort(key=lambda row: (found[row].count, found[row].distance, row))
    if scope == "global":
        return turns(allowed[: math.floor(len(found) * Fraction(str(share)) / 100)], labels)
    kept = []
    for c, size in enumerate(SIZES):
        kept += [row for row in allowed if labels[row] == c][: math.floor(size * Fraction(str(share)) / 100)]
    return turns(kept, labels)


def produced(made: Boundary) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values.copy()) for name, values in made.produce(0, made.count).items()}


def test_the_space_has_embeddings_of_all_kinds() -> None:
    for c in range(len(NAMES)):
        own = [one for one, y in zip(arrivals(), space().labels.tolist(), strict=True) if y == c]
        assert any(one.count == 0 for one in own), c
        assert any(not one.crossed for one in own), c
        assert len({one.count for one in own if one.crossed and one.count}) > 2, c


@each(
    ("share", "scope", "unit", "features", "drop"),
    [
        (20.0, "per_class", True, "raw", True),
        (20.0, "global", True, "raw", True),
        (9.9, "per_class", True, "raw", True),
        (20.0, "per_class", False, "raw", True),
        (20.0, "per_class", True, "unit", True),
        (30.0, "per_class", True, "raw", False),
        (30.0, "global", True, "raw", False),
        (100.0, "per_class", True, "raw", True),
        (100.0, "global", False, "raw", True),
    ],
)
def test_of_each_class_or_of_all_the_nearest_to_a_boundary_are_walked_across_it(
    share: float, scope: str, unit: bool, features: str, drop: bool
) -> None:
    latent, found = space(unit), arrivals(unit, features)
    rows = nearest(found, share, scope, drop)
    made = maker(latent, share=share, scope=scope, features=features, drop_misclassified=drop)
    items = produced(made)
    assert set(items) == {"outliers", "labels", "steps", "origin"}
    assert items["origin"].tolist() == rows
    assert items["labels"].tolist() == latent.labels[rows].tolist()
    assert items["steps"].tolist() == [found[row].count for row in rows]
    torch.testing.assert_close(items["outliers"], torch.stack([found[row].point for row in rows]), atol=1e-10, rtol=0)
    assert (made.count, made.classes) == (len(rows), NAMES)


def test_misclassified_embeddings_are_first_only_where_they_are_not_left_out() -> None:
    without, with_them = (produced(maker(share=50.0, drop_misclassified=drop))["steps"] for drop in (True, False))
    assert (without > 0).all()
    assert (with_them[: len(NAMES)] == 0).all()


@each(
    ("n", "share"),
    [(100, 29.0), (500, 64.6), (1000, 32.3), (5000, 1.14), (300, 7.0), (50, 1.9), (200, 0.5), (7, 100.0)],
)
def test_the_share_is_rounded_down(n: int, share: float) -> None:
    for classes in (1, 3):
        labels = torch.arange(n * classes) % classes
        distances = torch.arange(n * classes).double() / 1e6 + 0.1
        searched = Walk(torch.ones_like(labels), distances, torch.ones(len(labels), dtype=torch.bool), None)
        each_of = math.floor(n * Fraction(str(share)) / 100)
        found = selected(searched, labels, classes, share, "per_class", True)
        assert labels[found].bincount(minlength=classes).tolist() == [each_of] * classes
        of_all = math.floor(n * classes * Fraction(str(share)) / 100)
        assert selected(searched, labels, classes, share, "global", True).tolist() == list(range(of_all))


def test_embeddings_of_one_count_are_told_apart_by_distance_then_by_their_place() -> None:
    counts = torch.tensor([3, 2, 2, 0, 2, 9, 1, 2, 9])
    distances = torch.tensor([2.1, 1.5, 1.2, 0.0, 1.5, 9.0, 0.9, 1.5, 8.5])
    crossed = torch.tensor([True] * 5 + [False] + [True] * 3)
    searched, labels = Walk(counts, distances, crossed, None), torch.zeros(9, dtype=torch.int64)
    for share, expected in [(100.0, [6, 2, 1, 4, 7, 0, 8]), (45.0, [6, 2, 1, 4]), (23.0, [6, 2])]:
        assert selected(searched, labels, 1, share, "global", True).tolist() == expected
        assert selected(searched, labels, 1, share, "per_class", True).tolist() == expected
    assert selected(searched, labels, 1, 34.0, "global", False).tolist() == [3, 6, 2]


def test_of_equal_embeddings_the_first_are_taken() -> None:
    latent = space()
    row = nearest(arrivals(), 20.0)[0]
    h, labels = latent.embeddings[row].expand(10, D).clone(), latent.labels[row].expand(10).clone()
    found = produced(maker(replace(latent, embeddings=h, labels=labels), share=40.0))
    assert found["origin"].tolist() == [0, 1, 2, 3]


@each("scope", ["per_class", "global"])
def test_random_identification_takes_any_that_cross_and_is_a_function_of_the_seed(scope: str) -> None:
    allowed = {row for row, one in enumerate(arrivals()) if one.crossed and one.count}
    first, again, other = (
        produced(maker(identification="random", scope=scope, seed=seed))["origin"].tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert set(first) != set(other)
    labels = space().labels
    for rows in (first, other):
        assert len(set(rows)) == len(rows)
        assert set(rows) <= allowed
        assert set(rows) != set(nearest(arrivals(), 20.0, scope))
        assert rows == turns(rows, labels.tolist())
        if scope == "per_class":
            assert labels[rows].bincount().tolist() == [size // 5 for size in SIZES]
        else:
            assert len(rows) == sum(SIZES) // 5


def test_a_random_choice_is_uniform() -> None:
    searched = Walk(torch.arange(1, 13), torch.arange(12.0), torch.arange(12) < 8, None)
    labels, seen = torch.zeros(12, dtype=torch.int64), torch.zeros(12)
    draws = 800
    for seed in range(draws):
        draw = torch.Generator().manual_seed(seed)
        found = selected(searched, labels, 1, 25.0, "per_class", True, draw)
        assert len(found) == 3
        seen[found] += 1
    assert (seen[8:] == 0).all()
    assert (seen[:8] / draws - 3 / 8).abs().max() < 5 * math.sqrt(3 / 8 * 5 / 8 / draws)


def test_none_leaves_embeddings_where_they_are() -> None:
    found = produced(maker(displacement="none"))
    assert found["origin"].tolist() == nearest(arrivals(), 20.0)
    assert torch.equal(found["outliers"], space().embeddings[found["origin"]])
    assert found["steps"].tolist() == [arrivals()[row].count for row in found["origin"].tolist()]


@each("further", [0, 1, 2])
def test_embeddings_are_walked_so_many_steps_behind_the_boundary(further: int) -> None:
    found = produced(maker(further_steps=further))
    points = torch.stack([arrivals(further=further)[row].point for row in found["origin"].tolist()])
    torch.testing.assert_close(found["outliers"], points, atol=1e-10, rtol=0)


@each("displacement", ["gaussian_noise", "centroid"])
@each(("scale", "features"), [(None, "raw"), (None, "unit"), (0.7, "raw"), (2.0, "unit"), (0.0, "raw")])
def test_noise_and_push_are_as_long_as_the_walk_or_as_is_said(
    scale: float | None, features: str, displacement: str
) -> None:
    found = produced(maker(displacement=displacement, scale=scale, features=features))
    rows = found["origin"].tolist()
    assert rows == nearest(arrivals(features=features), 20.0)
    for row, outlier in zip(rows, found["outliers"], strict=True):
        h = space().embeddings[row]
        h = h / h.norm() if features == "unit" else h
        expected = (arrivals(features=features)[row].point - h).norm().item() if scale is None else scale
        assert (outlier - h).norm().item() == pytest.approx(expected, abs=1e-6)


@each("features", ["raw", "unit"])
def test_a_push_is_away_from_the_mean_of_the_class(features: str) -> None:
    latent = space()
    h = latent.embeddings
    h = torch.stack([row / row.norm() for row in h]) if features == "unit" else h
    found = produced(maker(displacement="centroid", scale=1.5, features=features))
    for row, outlier in zip(found["origin"].tolist(), found["outliers"], strict=True):
        own = [other for other, y in zip(h, latent.labels, strict=True) if y == latent.labels[row]]
        push = h[row] - sum(own[1:], own[0]) / len(own)
        torch.testing.assert_close(outlier, h[row] + 1.5 * push / push.norm(), atol=1e-9, rtol=0)


def test_noise_is_a_function_of_the_seed_and_of_every_direction() -> None:
    first, again, other = (produced(maker(displacement="gaussian_noise", share=50.0, seed=s)) for s in (1, 1, 2))
    assert torch.equal(first["outliers"], again["outliers"])
    assert torch.equal(first["origin"], other["origin"])
    assert ((first["outliers"] - other["outliers"]).norm(dim=1) > 1e-3).all()
    noise = F.normalize(first["outliers"] - space().embeddings[first["origin"]], dim=1)
    n = len(noise)
    cosines = (noise @ noise.T)[~torch.eye(n, dtype=torch.bool)]
    assert cosines.max() < 0.999
    assert cosines.mean().abs() < 0.15
    assert torch.linalg.matrix_rank(noise) == D


@each("displacement", ["adversarial", "gaussian_noise", "centroid", "none"])
@each("parts", [[0, 10, 16], [0, 1, 2, 9, 16], [0, 16]])
def test_items_are_the_same_however_they_are_asked_for(parts: list[int], displacement: str) -> None:
    options: dict[str, Any] = {"displacement": displacement, "share": 20.0}
    whole = maker(**options).produce(0, 16)
    made = maker(**options)
    assert made.count == 16
    pieces = [made.produce(start, stop) for start, stop in reversed(list(pairwise(parts)))][::-1]
    for name, values in whole.items():
        assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), values), name
        assert all(piece[name].flags["C_CONTIGUOUS"] for piece in pieces)


@each("displacement", ["adversarial", "gaussian_noise", "centroid", "none"])
@each("scale", [None, 1.0])
def test_outliers_are_float32_and_numbers_int64(scale: float | None, displacement: str) -> None:
    latent = space(dtype=torch.float32)
    kept = (latent.embeddings.clone(), latent.labels.clone())
    items = maker(latent, displacement=displacement, scale=scale).produce(0, 5)
    assert items["outliers"].dtype == np.float32
    assert items["outliers"].shape == (5, D)
    assert {items[name].dtype for name in ("labels", "steps", "origin")} == {np.dtype(np.int64)}
    assert torch.equal(latent.embeddings, kept[0])
    assert torch.equal(latent.labels, kept[1])


@each("labels", [[0, 0, 0, 1, 3, 3, 1, 0], [2, 1, 0], [3], [1, 1, 1], [3, 0, 3, 0, 3, 2]])
def test_classes_take_turns(labels: list[int]) -> None:
    assert in_turn(torch.tensor(labels)).tolist() == turns(range(len(labels)), labels)


def test_a_class_without_a_boundary_gives_none() -> None:
    latent = space()
    h = torch.where((latent.labels == 1)[:, None], 1e3 * latent.anchors[1], latent.embeddings)
    found = produced(maker(replace(latent, embeddings=h)))
    assert set(found["labels"].tolist()) == {0, 2, 3}


def test_an_encoder_that_misclassifies_everything_is_refused() -> None:
    latent = space()
    h = 3 * F.normalize(latent.anchors, dim=1)[(latent.labels + 1) % len(NAMES)]
    with pytest.raises(RunError, match=r"misclassifies all 90 embeddings.*outliers\.needs\.encoder"):
        maker(replace(latent, embeddings=h)).produce(0, 1)


def test_steps_that_reach_no_boundary_are_refused() -> None:
    wrong = sum(one.count == 0 for one in arrivals())
    with pytest.raises(
        RunError, match=rf"of 90 .* none crosses .* outliers\.max_steps=2 .* outliers\.alpha=1e-06 \({wrong} are miscl"
    ):
        maker(alpha=1e-6, max_steps=2).produce(0, 1)


@each("scope", ["per_class", "global"])
def test_a_share_of_less_than_one_is_refused(scope: str) -> None:
    crossed = sum(one.crossed and one.count > 0 for one in arrivals())
    with pytest.raises(RunError, match=rf"outliers\.share=0\.5: of 90 embeddings, {crossed} of which cross a boundary"):
        maker(share=0.5, scope=scope).produce(0, 1)
