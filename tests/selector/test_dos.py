"""Diverse outliers against a loop over the clusters, with clusters known beforehand and with those of k-means."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from ood_lab.geometry.clustered import Engine
from ood_lab.parts import Rows
from ood_lab.selector.dos import DOS
from tests.cases import each
from tests.method.test_base import NoWaiting
from tests.selector.candidates import (
    CLASSES,
    SIZES,
    absent_probabilities,
    assert_valid,
    degenerate,
    groups_of_directions,
    outputs,
    rows_of,
    seeded,
    unit_clusters,
)
from tests.views import normal

COUNT = sum(SIZES)


def least_absent_naive(probabilities: list[float], labels: list[int], each: int) -> set[int]:
    """Of each cluster the candidates with the lowest probability of the class for none."""
    kept: set[int] = set()
    for label in set(labels):
        mine = [i for i in range(len(labels)) if labels[i] == label]
        kept |= set(sorted(mine, key=probabilities.__getitem__)[:each])
    return kept


@each(("take", "each"), [(6, 1), (12, 2), (17, 2), (24, 4), (33, 5)])
def test_each_known_group_gives_the_least_absent_ones(take: int, each: int) -> None:
    for seed in range(5):
        (features, group), found = groups_of_directions(seed), outputs(COUNT, seed)
        got = DOS(clusters=6).choose(rows_of(features, found), COUNT, take, seeded(seed))
        assert_valid(got, COUNT, take)
        wanted = least_absent_naive(absent_probabilities(found), group, each)
        assert len(wanted) == sum(min(size, each) for size in SIZES)
        assert wanted <= set(got.tolist())


@each("engine", ["torch", "faiss"])
@each(("clusters", "take", "count", "made"), [(8, 30, 70, 8), (64, 10, 50, 10), (64, 64, 40, 40), (3, 40, 41, 3)])
def test_the_choice_matches_the_loop_over_clusters_of_directions(
    clusters: int, take: int, count: int, made: int, engine: Engine
) -> None:
    for seed in range(3):
        features = (normal(count, 4, seed=seed) * normal(count, 1, seed=seed + 1).exp()).float()
        found = outputs(count, seed)
        labels = unit_clusters(features, made, seeded(seed), engine)
        got = DOS(clusters=clusters, engine=engine).choose(rows_of(features, found), count, take, seeded(seed))
        assert_valid(got, count, take)
        assert least_absent_naive(absent_probabilities(found), labels, take // made) <= set(got.tolist())


def test_as_many_clusters_as_images_are_taken_give_one_each() -> None:
    (features, group), found = groups_of_directions(), outputs(COUNT)
    got = DOS().choose(rows_of(features, found), COUNT, len(SIZES), seeded())
    assert set(got.tolist()) == least_absent_naive(absent_probabilities(found), group, 1)


def test_sixty_four_clusters_are_the_default() -> None:
    features, found = normal(300, 3).float(), outputs(300)
    got = DOS().choose(rows_of(features, found), 300, 128, seeded())
    labels = unit_clusters(features, 64, seeded(), "torch")
    assert least_absent_naive(absent_probabilities(found), labels, 2) <= set(got.tolist())


def test_the_rest_is_any_of_the_others_alike() -> None:
    (features, group), found = groups_of_directions(), outputs(COUNT)
    wanted, draw, seen = least_absent_naive(absent_probabilities(found), group, 4), seeded(), Counter()
    for _ in range(400):
        seen.update(set(DOS(clusters=6).choose(rows_of(features, found), COUNT, 24, draw).tolist()) - wanted)
    others = sorted(set(range(COUNT)) - wanted)
    assert sorted(seen) == others
    assert chisquare([seen[i] for i in others]).pvalue > 1e-3


@each("engine", ["torch", "faiss"])
def test_the_choice_is_a_function_of_its_generator(engine: Engine) -> None:
    rows = rows_of(normal(60, 4), outputs(60))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = DOS(clusters=7, engine=engine).choose(rows, 60, 30, seeded(1)).tolist()
    assert torch.equal(torch.get_rng_state(), before)
    assert DOS(clusters=7, engine=engine).choose(rows, 60, 30, seeded(1)).tolist() == first
    assert DOS(clusters=7, engine=engine).choose(rows, 60, 30, seeded(2)).tolist() != first


@each("take", [1, 2, 5, 12, 30])
@each("clusters", [1, 4, 64])
def test_candidates_that_tell_nothing_are_still_chosen_from(clusters: int, take: int) -> None:
    for rows in degenerate(12).values():
        assert_valid(DOS(clusters=clusters).choose(rows, 12, take, seeded()), 12, take)
    one = rows_of(normal(1, 3), outputs(1))
    assert DOS(clusters=clusters).choose(one, 1, take, seeded()).tolist() == [0]


def test_a_candidate_whose_outputs_are_no_numbers_is_not_taken_for_the_least_absent() -> None:
    (features, group), found = groups_of_directions(), outputs(COUNT)
    first = group.index(0)
    found[first] = torch.nan
    got = DOS(clusters=6).choose(rows_of(features, found), COUNT, 6, seeded())
    assert first not in got.tolist()


def test_faiss_chooses_from_candidates_that_tell_nothing() -> None:
    for name, rows in degenerate(12).items():
        if name != "features are no numbers":
            assert_valid(DOS(clusters=4, engine="faiss").choose(rows, 12, 5, seeded()), 12, 5)


def test_it_reads_exactly_what_it_declares() -> None:
    given: dict[str, Any] = {"features": normal(9, 3), "logits": outputs(9), "absent": outputs(9)[:, -1:]}
    assert set(DOS.reads) == set(given)
    assert DOS(candidates=9).candidates == 9
    DOS().choose(Rows(**given).of_classes(CLASSES), 9, 3, seeded())
    for name in given:
        with pytest.raises(LookupError, match=name):
            DOS().choose(Rows(**{key: given[key] for key in given if key != name}), 9, 3, seeded())


def test_nothing_waits_for_the_device() -> None:
    rows = rows_of(normal(20, 2), outputs(20))
    with NoWaiting():
        DOS(clusters=4).choose(rows, 20, 5, seeded())
