"""DreamOOD's outliers: which draws are kept, against a loop; their order, their seed; what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.errors import RunError
from ood_lab.outliers.base import LatentSpace
from ood_lab.outliers.low_likelihood import LowLikelihood
from ood_lab.random import generator
from tests.cases import each
from tests.views import normal

D = 6
NAMES = ("ant", "bee", "cat")
SIZES = (17, 4, 11)
OPTIONS: dict[str, Any] = {
    "neighbor": 3, "boundary": 4, "deviation": 0.2, "candidates": 9, "per_point": 2, "rounds": 3, "shard_items": 10,
    "seed": 5, "needs": {},
}  # fmt: skip


def space(sizes: tuple[int, ...] = SIZES) -> LatentSpace:
    """Classes of several sizes in mixed order, with embeddings of several lengths."""
    n = sum(sizes)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[order]
    gamma = F.normalize(normal(len(NAMES), D, seed=1), dim=1)
    h = (gamma[labels] + 0.4 * normal(n, D, seed=3)) * torch.linspace(0.5, 8, n, dtype=torch.float64)[:, None]
    return LatentSpace(h.float(), labels, gamma.float(), True, 0.2, NAMES)


def maker(latent: LatentSpace | None = None, **changes: Any) -> LowLikelihood:
    return LowLikelihood(space() if latent is None else latent, **{**OPTIONS, **changes})


def produced(made: LowLikelihood) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values.copy()) for name, values in made.produce(0, made.count).items()}


def to_kth(point: Tensor, units: Tensor, k: int) -> float:
    """The distance to the k-th nearest."""
    return sorted((point - other).norm().item() for other in units)[k - 1]


def loop(latent: LatentSpace, c: int, options: dict[str, Any]) -> list[list[Tensor]]:
    """The points of a class, for each round, in float64."""
    units = [row / row.norm() for row, y in zip(latent.embeddings.double(), latent.labels, strict=True) if y == c]
    every = torch.stack(units)
    k = min(options["neighbor"], len(units))
    far = sorted(units, key=lambda row: -to_kth(row, every, k))[: options["boundary"]]
    rounds = []
    for turn in range(options["rounds"]):
        draw = generator(options["seed"], "noise", c, turn)
        noise = torch.randn(options["candidates"], D, generator=draw).double()
        kept = []
        for row in far:
            moved = [row + options["deviation"] * vector for vector in noise]
            moved = [point / point.norm() for point in moved]
            kept += sorted(moved, key=lambda point: -to_kth(point, every, k))[: options["per_point"]]
        rounds.append(kept)
    return rounds


def in_some_order(rows: Tensor) -> Tensor:
    return torch.stack(sorted(rows.double(), key=lambda row: row[0].item()))


@each(
    "changes",
    [
        {},
        {"neighbor": 1, "boundary": 300},
        {"neighbor": 4, "boundary": 2, "per_point": 1},
        {"neighbor": 300, "boundary": 300},
        {"boundary": 300},
        {"per_point": 9},
        {"deviation": 0.03, "seed": 6},
        {"rounds": 1, "candidates": 40, "per_point": 5},
    ],
)
def test_of_each_round_the_farthest_draws_of_each_boundary_embedding_are_kept(changes: dict[str, Any]) -> None:
    latent, options = space(), {**OPTIONS, **changes}
    made = maker(latent, **changes)
    found = produced(made)
    assert set(found) == {"outliers", "labels"}
    for c, size in enumerate(SIZES):
        points = found["outliers"][found["labels"] == c]
        each_round = min(options["boundary"], size) * options["per_point"]
        assert len(points) == each_round * options["rounds"]
        expected = loop(latent, c, options)
        for part, kept in zip(points.split(each_round), expected, strict=True):
            torch.testing.assert_close(
                in_some_order(part), in_some_order(torch.stack(kept)), atol=2e-6, rtol=0, msg=lambda m, c=c: f"{c}: {m}"
            )
    assert (made.count, made.classes) == (len(found["labels"]), NAMES)


def test_outliers_are_unit_vectors_in_float32_and_the_space_stays() -> None:
    latent = space()
    before = latent.embeddings.clone()
    found = maker(latent).produce(0, 7)
    assert found["outliers"].dtype == np.float32
    assert found["outliers"].shape == (7, D)
    assert found["labels"].dtype == np.int64
    assert np.abs(np.linalg.norm(found["outliers"].astype(float), axis=1) - 1).max() < 1e-6
    assert torch.equal(latent.embeddings, before)


def test_lengths_of_embeddings_do_not_matter() -> None:
    latent = space()
    longer = LatentSpace(4 * latent.embeddings, latent.labels, latent.anchors, True, 0.2, NAMES)
    assert torch.equal(produced(maker(latent))["outliers"], produced(maker(longer))["outliers"])


def test_classes_take_turns() -> None:
    sizes = (3, 1, 2)
    labels = produced(maker(space(sizes), rounds=1))["labels"].tolist()
    left, expected = [2 * size for size in sizes], []
    while any(left):
        for c in range(3):
            if left[c]:
                left[c] -= 1
                expected.append(c)
    assert labels == expected
    assert labels == [0, 1, 2, 0, 1, 2, 0, 2, 0, 2, 0, 0]


def test_outliers_are_a_function_of_the_seed() -> None:
    first, again, other = (produced(maker(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first["outliers"], again["outliers"])
    assert torch.equal(first["labels"], other["labels"])
    assert ((first["outliers"][:, None] - other["outliers"]).norm(dim=2) > 1e-4).all()


def test_noise_is_fresh_in_each_round_and_class() -> None:
    found = produced(maker())
    distances = (found["outliers"][:, None] - found["outliers"]).norm(dim=2) + torch.eye(len(found["outliers"]))
    assert distances.min() > 1e-4
    # Classes of the same embeddings.
    latent = space((8, 8, 8))
    h = torch.empty_like(latent.embeddings)
    for c in range(3):
        h[latent.labels == c] = latent.embeddings[latent.labels == 0]
    same = produced(maker(LatentSpace(h, latent.labels, latent.anchors, True, 0.2, NAMES)))
    one, two, three = (same["outliers"][same["labels"] == c] for c in range(3))
    for a, b in ((one, two), (one, three), (two, three)):
        assert (a[:, None] - b).norm(dim=2).min() > 1e-4


def test_more_rounds_and_more_classes_leave_what_is_there() -> None:
    few, many = produced(maker(rounds=2)), produced(maker(rounds=4))
    for c in range(len(NAMES)):
        start = few["outliers"][few["labels"] == c]
        assert torch.equal(many["outliers"][many["labels"] == c][: len(start)], start)


@each("neighbor", [17, 18, 300])
def test_the_neighbor_is_clipped_to_the_class(neighbor: int) -> None:
    assert torch.equal(produced(maker(neighbor=neighbor))["outliers"], produced(maker(neighbor=1000))["outliers"])


def test_a_class_of_one_embedding_gives_outliers() -> None:
    found = produced(maker(space((5, 1, 5))))
    assert (found["labels"] == 1).sum() == 1 * 2 * 3
    assert found["outliers"].isfinite().all()


@each("parts", [[0, 10, 20, 30, 72], [0, 1, 2, 71, 72], [0, 72]])
def test_items_are_the_same_however_they_are_asked_for(parts: list[int]) -> None:
    whole = maker().produce(0, 72)
    made = maker()
    assert made.count == 72
    pieces = [made.produce(start, stop) for start, stop in reversed(list(pairwise(parts)))][::-1]
    for name, values in whole.items():
        assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), values), name
        assert all(piece[name].flags["C_CONTIGUOUS"] for piece in pieces)


@each(("sizes", "name"), [((4, 0, 5), "bee"), ((0, 3, 3), "ant"), ((3, 3, 0), "cat")])
def test_a_class_without_embeddings_is_refused(sizes: tuple[int, ...], name: str) -> None:
    with pytest.raises(RunError, match=f"class {name} has no embeddings to find outliers around"):
        maker(space(sizes)).produce(0, 1)
