"""GReg+'s choice against a loop over the clusters, with clusters known beforehand and with those of k-means."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from ood_lab.geometry.clustered import Engine
from ood_lab.parts import Rows
from ood_lab.selector.energy_kmeans import EnergyKMeans
from tests.cases import each
from tests.method.test_base import NoWaiting
from tests.selector.candidates import (
    CLASSES,
    SIZES,
    assert_valid,
    degenerate,
    energies,
    groups_of_directions,
    outputs,
    rows_of,
    seeded,
    unit_clusters,
)
from tests.views import normal

COUNT = sum(SIZES)


def both_ends_naive(scores: list[float], labels: list[int], m: int) -> set[int]:
    """Of each cluster the m lowest and the m highest energies; of one with no more than m all, once."""
    kept: set[int] = set()
    for label in set(labels):
        mine = [i for i in range(len(labels)) if labels[i] == label]
        if len(mine) <= m:
            kept |= set(mine)
            continue
        from_below = sorted(mine, key=scores.__getitem__)
        kept |= set(from_below[:m]) | set(from_below[::-1][:m])
    return kept


@each(("take", "m"), [(12, 1), (13, 1), (23, 1), (24, 2), (33, 2)])
def test_each_known_group_gives_its_lowest_and_its_highest_energies(take: int, m: int) -> None:
    for seed in range(5):
        (features, group), found = groups_of_directions(seed), outputs(COUNT, seed)
        got = EnergyKMeans(clusters=6).choose(rows_of(features, found), COUNT, take, seeded(seed))
        assert_valid(got, COUNT, take)
        wanted = both_ends_naive(energies(found), group, m)
        assert len(wanted) == sum(min(size, 2 * m) for size in SIZES)
        assert wanted <= set(got.tolist())


@each("engine", ["torch", "faiss"])
@each(
    ("clusters", "take", "count", "made"),
    [(8, 32, 70, 8), (64, 20, 50, 10), (64, 21, 50, 10), (64, 200, 40, 40), (3, 40, 41, 3), (64, 3, 30, 1)],
)
def test_the_choice_matches_the_loop_over_clusters_of_directions(
    clusters: int, take: int, count: int, made: int, engine: Engine
) -> None:
    for seed in range(3):
        features = (normal(count, 4, seed=seed) * normal(count, 1, seed=seed + 1).exp()).float()
        found = outputs(count, seed)
        labels = unit_clusters(features, made, seeded(seed), engine)
        got = EnergyKMeans(clusters=clusters, engine=engine).choose(rows_of(features, found), count, take, seeded(seed))
        assert_valid(got, count, take)
        assert both_ends_naive(energies(found), labels, take // (2 * made)) <= set(got.tolist())


def test_half_as_many_clusters_as_images_are_taken_give_one_from_below_and_one_from_above() -> None:
    (features, group), found = groups_of_directions(), outputs(COUNT)
    got = set(EnergyKMeans().choose(rows_of(features, found), COUNT, 2 * len(SIZES), seeded()).tolist())
    wanted = both_ends_naive(energies(found), group, 1)
    assert wanted <= got
    assert len(got - wanted) == 1, "one group has a single candidate"


def test_a_single_image_has_the_lowest_or_the_highest_energy_of_all() -> None:
    for seed in range(10):
        found = outputs(30, seed)
        got = EnergyKMeans().choose(rows_of(normal(30, 4), found), 30, 1, seeded(seed))
        assert set(got.tolist()) < both_ends_naive(energies(found), [0] * 30, 1)


def test_sixty_four_clusters_are_the_default() -> None:
    features, found = normal(400, 3).float(), outputs(400)
    got = EnergyKMeans().choose(rows_of(features, found), 400, 256, seeded())
    labels = unit_clusters(features, 64, seeded(), "torch")
    assert both_ends_naive(energies(found), labels, 2) <= set(got.tolist())


def test_the_rest_is_any_of_the_others_alike() -> None:
    (features, group), found = groups_of_directions(), outputs(COUNT)
    wanted, draw, seen = both_ends_naive(energies(found), group, 2), seeded(), Counter()
    for _ in range(400):
        seen.update(set(EnergyKMeans(clusters=6).choose(rows_of(features, found), COUNT, 24, draw).tolist()) - wanted)
    others = sorted(set(range(COUNT)) - wanted)
    assert sorted(seen) == others
    assert chisquare([seen[i] for i in others]).pvalue > 1e-3


def test_only_outputs_of_the_classes_count() -> None:
    features, found = normal(40, 4).float(), outputs(40)
    changed = torch.cat([found[:, :-1], 100 * normal(40, 1, seed=3)], dim=1)
    first, second = (
        EnergyKMeans(clusters=4).choose(Rows(features=features, logits=x).of_classes(CLASSES), 40, 8, seeded()).tolist()
        for x in (found, changed)
    )
    assert first == second


@each("engine", ["torch", "faiss"])
def test_the_choice_is_a_function_of_its_generator(engine: Engine) -> None:
    rows = rows_of(normal(60, 4), outputs(60))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = EnergyKMeans(clusters=7, engine=engine).choose(rows, 60, 30, seeded(1)).tolist()
    assert torch.equal(torch.get_rng_state(), before)
    assert EnergyKMeans(clusters=7, engine=engine).choose(rows, 60, 30, seeded(1)).tolist() == first
    assert EnergyKMeans(clusters=7, engine=engine).choose(rows, 60, 30, seeded(2)).tolist() != first


@each("take", [1, 2, 5, 12, 30])
@each("clusters", [1, 4, 64])
def test_candidates_that_tell_nothing_are_still_chosen_from(clusters: int, take: int) -> None:
    for rows in degenerate(12).values():
        assert_valid(EnergyKMeans(clusters=clusters).choose(rows, 12, take, seeded()), 12, take)
    one = rows_of(normal(1, 3), outputs(1))
    assert EnergyKMeans(clusters=clusters).choose(one, 1, take, seeded()).tolist() == [0]


def test_faiss_chooses_from_candidates_that_tell_nothing() -> None:
    for name, rows in degenerate(12).items():
        if name != "features are no numbers":
            assert_valid(EnergyKMeans(clusters=4, engine="faiss").choose(rows, 12, 5, seeded()), 12, 5)


def test_it_reads_exactly_what_it_declares() -> None:
    given: dict[str, Any] = {"features": normal(9, 3), "logits": outputs(9)}
    assert set(EnergyKMeans.reads) == set(given)
    assert EnergyKMeans(candidates=9).candidates == 9
    EnergyKMeans().choose(Rows(**given).of_classes(CLASSES), 9, 3, seeded())
    for name in given:
        with pytest.raises(LookupError, match=name):
            EnergyKMeans().choose(Rows(**{key: given[key] for key in given if key != name}), 9, 3, seeded())


def test_nothing_waits_for_the_device() -> None:
    rows = rows_of(normal(20, 2), outputs(20))
    with NoWaiting():
        EnergyKMeans(clusters=4).choose(rows, 20, 8, seeded())
