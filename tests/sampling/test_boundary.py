"""The walk across a decision boundary (BOOD, Eqs. 3 to 5) against one embedding at a time and autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.sampling.boundary import AnchorClassifier, Walk, walk
from tests.cases import each
from tests.views import normal

N, C, D = 60, 5, 8


class Arrival(NamedTuple):
    """Of one embedding: k, its distance, whether it crossed, and where it came to rest."""

    count: int
    distance: float
    crossed: bool
    point: Tensor


def logits_of(h: Tensor, gamma: Tensor, temperature: float) -> Tensor:
    return gamma @ (h / h.norm()) / temperature


def ascended(h: Tensor, y: int, gamma: Tensor, temperature: float, step: float) -> Tensor:
    at = h.clone().requires_grad_()
    logits = logits_of(at, gamma, temperature)
    (slope,) = torch.autograd.grad(logits.logsumexp(0) - logits[y], at)
    return h + step * slope.sign()


def margin(h: Tensor, y: int, gamma: Tensor, temperature: float) -> float:
    logits = logits_of(h, gamma, temperature).tolist()
    return logits[y] - max(value for c, value in enumerate(logits) if c != y)


def loop(
    h: Tensor, y: int, gamma: Tensor, temperature: float, *, step: float, max_steps: int, further: int = 0
) -> Arrival:
    """One embedding's walk."""
    k, margins = 0, [margin(h, y, gamma, temperature)]
    while int(logits_of(h, gamma, temperature).argmax()) == y:
        if k == max_steps:
            return Arrival(k, float(k), False, h)
        h, k = ascended(h, y, gamma, temperature, step), k + 1
        margins.append(margin(h, y, gamma, temperature))
    distance = k - 1 + margins[-2] / (margins[-2] - margins[-1]) if k else 0.0
    for _ in range(further):
        h = ascended(h, y, gamma, temperature, step)
    return Arrival(k, distance, True, h)


def space(unit: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of lengths from 0.5 to 12 around their anchors, every ninth with the label of another one."""
    gamma = F.normalize(normal(C, D, seed=1), dim=1)
    labels = torch.arange(N) % C
    h = gamma[labels] + 0.25 * normal(N, D, seed=2)
    h *= torch.linspace(0.5, 12, N, dtype=torch.float64)[torch.randperm(N, generator=torch.Generator().manual_seed(3))][
        :, None
    ]
    labels = torch.where(torch.arange(N) % 9 == 4, (labels + 1) % C, labels)
    return h, labels, gamma if unit else gamma * torch.linspace(0.8, 1.2, C, dtype=torch.float64)[:, None]


OPTIONS: dict[str, Any] = {"step": 0.1, "max_steps": 12, "further": 2}


def assert_same(found: Walk, expected: Walk) -> None:
    assert torch.equal(found.counts, expected.counts)
    assert torch.equal(found.crossed, expected.crossed)
    assert found.points is not None
    torch.testing.assert_close(found.points, expected.points, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.distances, expected.distances, atol=1e-10, rtol=0)


@each(
    ("step", "max_steps", "further", "temperature", "unit"),
    [
        (0.1, 12, 2, 0.1, True),
        (0.1, 12, 0, 1.0, True),
        (0.3, 3, 4, 0.5, False),
        (0.05, 20, 1, 0.1, False),
        (0.5, 1, 3, 1.0, True),
    ],
)
def test_it_is_the_walk_of_one_embedding_after_the_other(
    step: float, max_steps: int, further: int, temperature: float, unit: bool
) -> None:
    h, labels, gamma = space(unit)
    options: dict[str, Any] = {"step": step, "max_steps": max_steps, "further": further}
    expected = [loop(row, int(y), gamma, temperature, **options) for row, y in zip(h, labels, strict=True)]
    wrong, never = (sum(test(one) for one in expected) for test in (lambda a: a.count == 0, lambda a: not a.crossed))
    assert wrong >= 5
    assert never >= 5
    assert N - wrong - never >= 5
    found = walk(h, labels, AnchorClassifier(gamma, temperature), **options)
    assert found.counts.tolist() == [one.count for one in expected]
    assert found.crossed.tolist() == [one.crossed for one in expected]
    assert found.points is not None
    torch.testing.assert_close(found.points, torch.stack([one.point for one in expected]), atol=1e-10, rtol=0)
    distances = torch.tensor([one.distance for one in expected], dtype=torch.float64)
    torch.testing.assert_close(found.distances, distances, atol=1e-10, rtol=0)


def test_it_is_so_for_embeddings_that_point_away_from_all_anchors() -> None:
    gamma = F.normalize(normal(C, D, seed=1) / 3 + normal(1, D, seed=2), dim=1)
    h = -2 * (gamma[torch.arange(20) % C] + 0.1 * normal(20, D, seed=3))
    labels = torch.tensor([int(logits_of(row, gamma, 0.1).argmax()) for row in h])
    options: dict[str, Any] = {"step": 0.05, "max_steps": 12, "further": 1}
    expected = [loop(row, int(y), gamma, 0.1, **options) for row, y in zip(h, labels, strict=True)]
    assert max(logits_of(one.point, gamma, 0.1).max() for one in expected) < 0
    assert sum(one.crossed for one in expected) > 10
    found = walk(h, labels, AnchorClassifier(gamma, 0.1), **options)
    assert found.counts.tolist() == [one.count for one in expected]
    distances = torch.tensor([one.distance for one in expected], dtype=torch.float64)
    torch.testing.assert_close(found.distances, distances, atol=1e-10, rtol=0)
    assert found.points is not None
    torch.testing.assert_close(found.points, torch.stack([one.point for one in expected]), atol=1e-10, rtol=0)


@each("rows", [1, 7, 59, 60])
def test_how_many_are_walked_together_is_without_effect(rows: int) -> None:
    h, labels, gamma = space()
    classifier = AnchorClassifier(gamma, 0.2)
    assert_same(walk(h, labels, classifier, rows=rows, **OPTIONS), walk(h, labels, classifier, **OPTIONS))


def test_an_embeddings_walk_does_not_depend_on_its_place() -> None:
    h, labels, gamma = space()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    classifier = AnchorClassifier(gamma, 0.2)
    whole = walk(h, labels, classifier, **OPTIONS)
    assert whole.points is not None
    expected = Walk(whole.counts[order], whole.distances[order], whole.crossed[order], whole.points[order])
    assert_same(walk(h[order], labels[order], classifier, rows=13, **OPTIONS), expected)


def test_what_is_given_stays_as_it_is() -> None:
    h, labels, gamma = space()
    given = (h, labels, gamma)
    kept = [tensor.clone() for tensor in given]
    found = walk(h, labels, AnchorClassifier(gamma, 0.2), **OPTIONS)
    assert all(map(torch.equal, given, kept))
    assert found.points is not None
    found.points.zero_()
    assert torch.equal(h, kept[0])


def test_points_can_be_left_out() -> None:
    h, labels, gamma = space()
    whole, found = (
        walk(h, labels, AnchorClassifier(gamma, 0.2), keep_points=keep, rows=17, **OPTIONS) for keep in (True, False)
    )
    assert found.points is None
    assert torch.equal(found.counts, whole.counts)
    assert torch.equal(found.distances, whole.distances)
    assert torch.equal(found.crossed, whole.crossed)


def test_the_last_step_that_is_allowed_can_cross() -> None:
    h, labels, gamma = space()
    classifier = AnchorClassifier(gamma, 0.2)
    counts = walk(h, labels, classifier, **OPTIONS).counts
    row = int((counts == 4).nonzero()[0])
    one, label = h[row : row + 1], labels[row : row + 1]
    for allowed, count, crossed in [(3, 3, False), (4, 4, True), (5, 4, True)]:
        found = walk(one, label, classifier, step=0.1, max_steps=allowed, further=3)
        assert (found.counts.item(), found.crossed.item()) == (count, crossed), allowed
        steps = count + 3 if crossed else count
        point = one[0]
        for _ in range(steps):
            point = ascended(point, int(label), gamma, 0.2, 0.1)
        assert found.points is not None
        torch.testing.assert_close(found.points[0], point, atol=1e-10, rtol=0)


def test_steps_behind_the_boundary_change_neither_counts_nor_distances() -> None:
    h, labels, gamma = space()
    near, far = (
        walk(h, labels, AnchorClassifier(gamma, 0.2), step=0.1, max_steps=12, further=further) for further in (0, 5)
    )
    assert torch.equal(near.counts, far.counts)
    assert torch.equal(near.distances, far.distances)
    assert near.points is not None
    assert far.points is not None
    moved = (near.points != far.points).any(1)
    assert torch.equal(moved, near.crossed)


def test_distances_are_within_the_last_step() -> None:
    h, labels, gamma = space()
    found = walk(h, labels, AnchorClassifier(gamma, 0.2), **OPTIONS)
    between = found.crossed & (found.counts > 0)
    assert (found.distances[between] > found.counts[between] - 1).all()
    assert (found.distances[between] < found.counts[between]).all()
    assert (found.distances[found.counts == 0] == 0).all()
    assert (found.distances[~found.crossed] == OPTIONS["max_steps"]).all()


def test_float32_embeddings_cross_where_float64_ones_do() -> None:
    h, labels, gamma = space()
    exact = walk(h, labels, AnchorClassifier(gamma, 0.1), **OPTIONS)
    found = walk(h.float(), labels, AnchorClassifier(gamma.float(), 0.1), **OPTIONS)
    assert found.points is not None
    assert found.points.dtype == found.distances.dtype == torch.float32
    assert (found.counts == exact.counts).double().mean() > 0.95
    assert torch.equal(found.crossed[found.counts == exact.counts], exact.crossed[found.counts == exact.counts])


@each(("temperature", "dtype"), [(1.0, torch.float32), (0.1, torch.float32), (0.05, torch.float64)])
def test_an_embedding_of_zero_has_logits_of_zero(temperature: float, dtype: torch.dtype) -> None:
    logits, _ = AnchorClassifier(space()[2].to(dtype), temperature).logits(torch.zeros(1, D, dtype=dtype))
    assert torch.equal(logits, torch.zeros(1, C, dtype=dtype))
