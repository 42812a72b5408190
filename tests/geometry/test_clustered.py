"""Choosing rows by clusters against loops, with ties, scores that are no numbers, and clusters of any size."""

from __future__ import annotations

import math
from collections import Counter

import torch
from scipy.stats import chisquare
from torch import Tensor

from ood_lab.geometry.clustered import Engine, clusters_of, extremes, filled
from ood_lab.geometry.kmeans import kmeans, kmeans_faiss
from tests.cases import each
from tests.method.test_base import NoWaiting
from tests.views import normal, normalise

NAN, INF = math.nan, math.inf


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def extremes_naive(scores: list[float], labels: list[int], low: int, high: int) -> set[int]:
    wanted: set[int] = set()
    for label in set(labels):
        mine = sorted((i for i in range(len(scores)) if labels[i] == label), key=lambda i: (scores[i], i))
        wanted |= set(mine[:low])
        wanted |= set(mine[max(0, len(mine) - high) :])
    return wanted


def wanted(scores: list[float], labels: list[int], low: int, high: int) -> set[int]:
    found = extremes(torch.tensor(scores, dtype=torch.float64), torch.tensor(labels), low, high)
    assert found.dtype == torch.bool
    assert found.shape == (len(scores),)
    return {i for i, flag in enumerate(found.tolist()) if flag}


# Extremes.


@each(("low", "high"), [(1, 0), (0, 1), (1, 1), (2, 2), (3, 1), (0, 4), (0, 0), (9, 9), (50, 0)])
@each("clusters", [1, 3, 8, 30])
def test_extremes_match_the_loop(clusters: int, low: int, high: int) -> None:
    for seed in range(5):
        scores = normal(30, seed=seed)
        labels = torch.randint(clusters, (30,), generator=seeded(seed))
        assert wanted(scores.tolist(), labels.tolist(), low, high) == extremes_naive(
            scores.tolist(), labels.tolist(), low, high
        )


def test_cluster_numbers_may_have_gaps() -> None:
    scores, labels = [3.0, 1, 2, 9, 8, 7], [40, 40, 40, 7, 7, 7]
    assert wanted(scores, labels, 1, 0) == {1, 5}
    assert wanted(scores, labels, 0, 1) == {0, 3}


@each("size", [1, 2, 3, 4])
def test_a_cluster_with_no_more_than_both_sides_together_gives_each_row_once(size: int) -> None:
    scores, labels = normal(size + 10).tolist(), [5] * size + [2] * 10
    got = wanted(scores, labels, 2, 2)
    assert set(range(size)) <= got
    assert len(got) == size + 4


def test_of_equal_scores_the_first_are_the_lowest() -> None:
    assert wanted([1.0] * 6, [0, 1, 0, 1, 0, 1], 1, 0) == {0, 1}
    assert wanted([2.0, 1, 1, 1, 0, 3], [0] * 6, 3, 0) == {4, 1, 2}
    scores, labels = torch.zeros(2000), torch.arange(2000) % 2
    assert extremes(scores, labels, 5, 0).nonzero().flatten().tolist() == list(range(10))


def test_equal_scores_give_as_many_rows_as_different_ones() -> None:
    for low, high in [(1, 1), (2, 3), (0, 2), (4, 0)]:
        assert len(wanted([1.0] * 20, [0, 1] * 10, low, high)) == 2 * (low + high)
        tied = [0.0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
        expected = Counter(sorted(tied)[:low] + sorted(tied)[10 - high :])
        assert Counter(tied[i] for i in wanted(tied, [3] * 10, low, high)) == expected


def test_infinite_scores_are_at_the_ends() -> None:
    scores = [0.0, INF, 1e38, -INF, -1e38]
    assert wanted(scores, [0] * 5, 1, 0) == {3}
    assert wanted(scores, [0] * 5, 2, 0) == {3, 4}
    assert wanted(scores, [0] * 5, 0, 1) == {1}
    assert wanted(scores, [0] * 5, 0, 2) == {1, 2}


def test_a_score_that_is_no_number_is_the_last_to_be_low_and_stays_in_its_cluster() -> None:
    assert wanted([NAN, 5.0, -1.0, NAN, 2.0], [0] * 5, 3, 0) == {1, 2, 4}
    assert wanted([NAN, 5.0, -1.0, NAN, 2.0], [0, 0, 1, 1, 1], 1, 0) == {1, 2}
    assert wanted([NAN] * 4, [0, 0, 1, 1], 1, 0) == {0, 2}
    assert len(wanted([NAN] * 8, [0] * 8, 2, 2)) == 4
    assert len(wanted([NAN, 1, 2, NAN, 3, 4, 5, NAN], [0] * 8, 2, 2)) == 4


def test_extremes_leave_their_arguments_as_they_were() -> None:
    scores, labels = torch.tensor([NAN, INF, 1.0]), torch.tensor([1, 0, 0])
    extremes(scores, labels, 1, 1)
    assert scores[0].isnan()
    assert scores[1:].tolist() == [INF, 1.0]
    assert labels.tolist() == [1, 0, 0]


# Filling up.


def flags(count: int, *rows: int) -> Tensor:
    found = torch.zeros(count, dtype=torch.bool)
    found[list(rows)] = True
    return found


@each(("count", "rows", "take"), [(10, (3, 7), 5), (10, (), 4), (10, (0, 9), 2), (6, (1,), 9), (4, (0, 1, 2, 3), 4)])
def test_filled_has_all_that_are_wanted_and_no_row_twice(count: int, rows: tuple[int, ...], take: int) -> None:
    for seed in range(20):
        found = filled(flags(count, *rows), take, seeded(seed))
        assert found.dtype == torch.int64
        assert len(found) == min(take, count)
        assert len(set(found.tolist())) == len(found)
        assert set(rows) <= set(found.tolist()) <= set(range(count))


def test_of_more_wanted_rows_than_asked_only_wanted_ones_are_given() -> None:
    found = filled(flags(10, 1, 4, 6, 8), 3, seeded()).tolist()
    assert len(set(found)) == 3
    assert set(found) <= {1, 4, 6, 8}


def test_what_is_left_is_filled_with_any_pair_of_the_others_alike() -> None:
    draw, seen = seeded(), Counter()
    for _ in range(3000):
        seen[frozenset(filled(flags(8, 2, 5, 7), 5, draw).tolist()) - {2, 5, 7}] += 1
    assert len(seen) == 10
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_filling_is_a_function_of_its_generator_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = filled(flags(50, 2), 20, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(filled(flags(50, 2), 20, seeded(1)), first)
    assert not torch.equal(filled(flags(50, 2), 20, seeded(2)), first)


def test_nothing_waits_for_the_device() -> None:
    scores, labels, draw = normal(40).float(), torch.arange(40) % 7, seeded()
    with NoWaiting():
        filled(extremes(scores, labels, 1, 2), 30, draw)
        clusters_of(normal(40, 3), 5, draw, "torch")


# Clusters.


@each("engine", ["torch", "faiss"])
def test_clusters_are_those_of_the_rows_at_unit_norm(engine: Engine) -> None:
    rows = normal(60, 5) * normal(60, 1, seed=1).exp()
    unit = torch.tensor([normalise(row) for row in rows.tolist()])
    find = {"torch": kmeans, "faiss": kmeans_faiss}[engine]
    for seed in range(5):
        assert torch.equal(clusters_of(rows, 6, seeded(seed), engine), find(unit, 6, seeded(seed)))


@each("engine", ["torch", "faiss"])
def test_the_length_of_rows_does_not_count(engine: Engine) -> None:
    rows = torch.tensor([[1.0, 0.01], [0.01, 1]])[torch.arange(20) % 2] * (3 * normal(20, 1)).exp().float()
    labels = clusters_of(rows, 2, seeded(), engine)
    assert labels.tolist() == labels[:2].tolist() * 10
    assert labels[0] != labels[1]


@each("engine", ["torch", "faiss"])
def test_rows_of_half_precision_and_rows_of_zeros_have_clusters(engine: Engine) -> None:
    rows = normal(20, 4).bfloat16()
    rows[3:6] = 0
    labels = clusters_of(rows, 4, seeded(), engine)
    assert set(labels.tolist()) <= set(range(4))
    assert len(set(labels[3:6].tolist())) == 1
