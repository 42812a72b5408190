"""POEM's choice against a regression in numpy, over epochs, restarts and devices, with made-up features."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ood_lab.errors import RunError
from ood_lab.selector.base import lowest
from ood_lab.selector.poem import POEM
from tests.cases import each
from tests.views import normal

Array = np.ndarray
D, COUNT = 4, 60
READINGS = ["exact", "released"]


class MadeUp:
    """Passes over given features: this device's share of them, in chunks, the last one first."""

    def __init__(
        self,
        seed: int = 0,
        run_seed: int = 0,
        network: int = 0,
        place: tuple[int, int] = (0, 1),
        total: Callable[[Tensor], Tensor] | None = None,
        count: int = COUNT,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.seed, self.run_seed, self.features, self.device = seed, run_seed, D, torch.device("cpu")
        self.id = (normal(25, D, seed=100 + network) + 1).to(dtype)
        self.auxiliary = (normal(count, D, seed=200 + network) - 0.5).to(dtype)
        self.place, self._total = place, total
        self.asked: list[list[int]] = []

    def _chunks(self, count: int) -> tuple[Tensor, ...]:
        return torch.arange(count)[self.place[0] :: self.place[1]].split(7)[::-1]

    def of_id(self) -> Iterator[Tensor]:
        yield from (self.id[places] for places in self._chunks(len(self.id)))

    def of_auxiliary(self, rows: Tensor, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        self.asked.append(rows.tolist())
        yield from ((places, self.auxiliary[rows[places]]) for places in self._chunks(len(rows)))

    def total(self, values: Tensor) -> Tensor:
        return values if self._total is None else self._total(values)


def poem(**changes: Any) -> POEM:
    return POEM(**{"pool": 1000, "take": 5, "queue": 3, **changes})


def standard_normal(seed: int) -> Array:
    """The numbers that weights are made of: they are the weights themselves where the prior has the variance 1."""
    return poem(prior=1.0)._weights(MadeUp(seed=seed), 0).numpy()


def regression_naive(id_z: Array, outlier_z: Array, epochs: int, made: POEM, shift: float = 0.0) -> tuple[Array, Array]:
    """Mean and precision of the weights, image by image."""
    precision, pulled = np.eye(D) / made.prior, np.zeros(D)
    for z in id_z:
        for _ in range(epochs):
            precision += np.outer(z, z) / made.noise
            pulled += z * (shift - made.target) / made.noise
    for z in outlier_z:
        precision += np.outer(z, z) / made.noise
        pulled += z * (shift + made.target) / made.noise
    return np.linalg.inv(precision) @ pulled, precision


def draw_naive(mean: Array, precision: Array, normals: Array, widening: float = 1.0) -> Array:
    return mean + math.sqrt(widening) * np.linalg.solve(np.linalg.cholesky(precision).T, normals)


def nearest_naive(features: Array, weights: Array, pool: list[int], take: int) -> list[int]:
    distance = {row: abs(sum(w * x for w, x in zip(weights, features[row], strict=True))) for row in pool}
    return sorted(pool, key=distance.__getitem__)[:take]


def after(made: POEM, *chosen: list[int]) -> POEM:
    """With such choices in its memory."""
    for epoch, rows in enumerate(chosen):
        made.choose = lambda *_, rows=rows: torch.tensor(rows)
        made.begin(MadeUp(), epoch, COUNT, 8)
    del made.choose
    return made


# Weights.


def test_the_numbers_that_weights_are_made_of_are_standard_normal_and_differ_between_epochs() -> None:
    found = np.stack([standard_normal(seed) for seed in range(1500)])
    assert len(np.unique(found)) == found.size
    assert np.abs(found.mean(0)).max() < 5 / math.sqrt(1500)
    assert np.abs(np.cov(found.T) - np.eye(D)).max() < 5 * math.sqrt(2 / 1500)


@each("reading", READINGS)
def test_in_the_first_epoch_weights_come_from_the_prior(reading: Any) -> None:
    got = poem(prior=20.0, reading=reading)._weights(MadeUp(seed=3), 0)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), math.sqrt(20) * standard_normal(3), rtol=1e-12)


@each("values", [{}, {"prior": 2.0, "noise": 3.0, "target": 0.7}, {"prior": 0.05, "noise": 0.05}])
@each("chosen", [[[4, 8]], [[4, 8], [8, 30]], [[1, 2], [3, 4], [5, 6]], [[0, 0], [0, 1], [2, 3], [9, 7]]])
def test_exact_weights_are_a_draw_from_the_posterior(chosen: list[list[int]], values: dict[str, float]) -> None:
    made, passes = after(poem(take=2, **values), *chosen), MadeUp(seed=5, network=1)
    kept = [row for rows in chosen[-3:] for row in rows]
    mean, precision = regression_naive(passes.id.numpy(), passes.auxiliary[kept].numpy(), len(chosen[-3:]), made)
    got = made._weights(passes, len(chosen)).numpy()
    np.testing.assert_allclose(got, draw_naive(mean, precision, standard_normal(5)), rtol=1e-8, atol=1e-10)


def shift_of(made: POEM, passes: MadeUp, kept: list[int], epochs: int) -> float:
    """The shift of the targets that explains the weights, which must lie where any shift could have put them."""
    features = passes.id.numpy(), passes.auxiliary[kept].numpy(), epochs, made
    still, precision = regression_naive(*features)
    slope = regression_naive(*features, shift=1.0)[0] - still
    moved = made._weights(passes, 9).numpy() - draw_naive(still, precision, standard_normal(passes.seed), made.prior)
    shift = float(moved @ slope / (slope @ slope))
    np.testing.assert_allclose(moved, shift * slope, atol=1e-9)
    return shift


def test_released_weights_have_a_wider_draw_and_targets_that_are_shifted_alike_in_all_epochs_of_a_run() -> None:
    made = after(poem(take=2, reading="released", prior=3.0, noise=0.8), [1, 2], [5, 6])
    first = shift_of(made, MadeUp(seed=5, run_seed=1), [1, 2, 5, 6], 2)
    assert shift_of(made, MadeUp(seed=6, run_seed=1, network=2), [1, 2, 5, 6], 2) == pytest.approx(first, abs=1e-8)
    assert shift_of(made, MadeUp(seed=5, run_seed=2), [1, 2, 5, 6], 2) != pytest.approx(first, abs=1e-3)


def test_the_shift_of_the_targets_has_the_variance_of_the_noise() -> None:
    made = after(poem(take=2, reading="released", noise=4.0), [1, 2])
    found = np.array([shift_of(made, MadeUp(run_seed=run), [1, 2], 1) for run in range(300)])
    assert abs(found.mean()) < 5 * 2 / math.sqrt(300)
    assert found.var() == pytest.approx(4, rel=5 * math.sqrt(2 / 300))


def test_exact_weights_do_not_depend_on_the_seed_of_the_run() -> None:
    made = after(poem(take=2), [1, 2])
    assert torch.equal(made._weights(MadeUp(run_seed=1), 1), made._weights(MadeUp(run_seed=2), 1))


def test_weights_tell_id_images_from_outliers_by_their_sign() -> None:
    made, passes = after(poem(take=20, noise=0.01), list(range(20))), MadeUp()
    passes.auxiliary = passes.auxiliary - 3
    weights = made._weights(passes, 1)
    assert float((passes.id @ weights).mean()) < -1
    assert float((passes.auxiliary[:20] @ weights).mean()) > 1


# Choices.


@each("reading", READINGS)
@each("pool", [1000, 20])
def test_over_epochs_the_nearest_to_the_drawn_boundary_are_chosen(pool: int, reading: Any) -> None:
    made, history = poem(pool=pool, reading=reading), []
    for epoch in range(8):
        passes = MadeUp(seed=40 + epoch, network=epoch)
        kept = [row for rows in history[-3:] for row in rows]
        weights = math.sqrt(20) * standard_normal(40 + epoch)
        if kept:
            again = MadeUp(seed=40 + epoch, network=epoch)
            shift = shift_of(made, again, kept, len(history[-3:])) if reading == "released" else 0.0
            found = regression_naive(passes.id.numpy(), passes.auxiliary[kept].numpy(), len(history[-3:]), made, shift)
            weights = draw_naive(*found, standard_normal(40 + epoch), 20.0 if reading == "released" else 1.0)
        made.begin(passes, epoch, COUNT, 8)
        looked_at = passes.asked[-1]
        assert len(set(looked_at)) == len(looked_at) == min(pool, COUNT)
        assert made.current().tolist() == nearest_naive(passes.auxiliary.numpy(), weights, looked_at, 5)
        history.append(made.current().tolist())
        assert sorted(made.remembered().tolist()) == sorted(row for rows in history[-3:] for row in rows)


@each("reading", READINGS)
def test_float32_features_give_the_choice_of_their_values_in_float64(reading: Any) -> None:
    single, double = poem(reading=reading), poem(reading=reading)
    for epoch in range(4):
        passes = MadeUp(seed=epoch, network=epoch, dtype=torch.float32)
        single.begin(passes, epoch, COUNT, 8)
        exact = MadeUp(seed=epoch, network=epoch)
        exact.id, exact.auxiliary = passes.id.double(), passes.auxiliary.double()
        double.begin(exact, epoch, COUNT, 8)
        assert single.current().tolist() == double.current().tolist()


def test_distances_to_the_boundary_are_told_apart_beyond_float32() -> None:
    made, passes = poem(), MadeUp(dtype=torch.float32)
    steps = torch.randint(8, (COUNT, D), generator=torch.Generator().manual_seed(0))
    passes.auxiliary = torch.ones(COUNT, D) + steps * 2.0**-23
    made.begin(passes, 0, COUNT, 8)
    features, weights = passes.auxiliary.double().numpy(), math.sqrt(20) * standard_normal(0)
    assert made.current().tolist() == nearest_naive(features, weights, passes.asked[-1], 5)


@each(
    ("take", "pool", "count", "served", "expected"),
    [(None, 1000, 60, 8, 8), (None, 20, 60, 30, 20), (5, 20, 60, 30, 5), (50, 20, 60, 8, 20), (50, 1000, 12, 8, 12)],
)
def test_so_many_are_chosen_of_so_many(take: int | None, pool: int, count: int, served: int, expected: int) -> None:
    made = poem(take=take, pool=pool)
    for epoch in range(5):
        passes = MadeUp(seed=epoch, count=count)
        made.begin(passes, epoch, count, served)
        assert len(passes.asked[-1]) == min(pool, count)
        assert len(set(made.current().tolist())) == len(made.current()) == expected
        assert set(made.current().tolist()) <= set(passes.asked[-1]) <= set(range(count))
        assert len(made.remembered()) == expected * min(epoch + 1, 3)


def test_the_pool_is_any_of_the_auxiliary_images_and_another_one_in_each_epoch() -> None:
    seen = np.zeros(COUNT)
    pools = set()
    for seed in range(300):
        passes = MadeUp(seed=seed)
        poem(pool=15).begin(passes, 0, COUNT, 8)
        seen[passes.asked[-1]] += 1
        pools.add(frozenset(passes.asked[-1]))
    assert len(pools) == 300
    assert np.abs(seen - 75).max() < 5 * math.sqrt(300 * 0.25 * 0.75)


def test_the_choice_leaves_the_global_generator_alone() -> None:
    made = after(poem(take=2, reading="released"), [1, 2])
    before = torch.get_rng_state()
    made.begin(MadeUp(), 1, COUNT, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_features_along_no_direction_are_chosen_from_and_the_first_are_taken() -> None:
    made = poem()
    for epoch in range(3):
        passes = MadeUp(seed=epoch)
        passes.auxiliary = torch.zeros_like(passes.auxiliary)
        passes.id = torch.zeros_like(passes.id)
        made.begin(passes, epoch, COUNT, 8)
        assert made.current().tolist() == passes.asked[-1][:5]


@each("which", ["id", "auxiliary"])
@each("value", [math.nan, math.inf])
def test_features_that_are_not_finite_end_the_run(which: str, value: float) -> None:
    made, passes = after(poem(take=2), [1, 2]), MadeUp()
    getattr(passes, which)[20, 1] = value
    with pytest.raises(RunError, match="not finite"):
        made.begin(passes, 1, COUNT, 8)
    assert made.current().tolist() == [1, 2]


# Memory.


class NoPasses(MadeUp):
    def of_id(self) -> Iterator[Tensor]:
        raise AssertionError("the choice is made")

    def of_auxiliary(self, rows: Tensor, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("the choice is made")


def test_an_epoch_is_chosen_for_once() -> None:
    made = poem()
    for epoch in range(5):
        made.begin(MadeUp(seed=epoch), epoch, COUNT, 8)
        before = copy.deepcopy(made.state_dict())
        made.begin(NoPasses(seed=99), epoch, COUNT, 8)
        assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_nothing_is_remembered_at_first() -> None:
    assert poem().remembered().tolist() == poem().current().tolist() == []


@each("queue", [1, 3])
@each("done", [0, 1, 2, 3, 7])
def test_a_new_object_goes_on_from_a_state_dict(done: int, queue: int) -> None:
    made = poem(queue=queue)
    for epoch in range(done):
        made.begin(MadeUp(seed=epoch), epoch, COUNT, 8)
    other = poem(queue=queue)
    other.load_state_dict(copy.deepcopy(made.state_dict()))
    assert other.current().tolist() == made.current().tolist()
    assert other.remembered().tolist() == made.remembered().tolist()
    if done:
        other.begin(NoPasses(), done - 1, COUNT, 8)
    for epoch in range(done, done + 3):
        for chooser in (made, other):
            chooser.begin(MadeUp(seed=epoch), epoch, COUNT, 8)
        assert other.current().tolist() == made.current().tolist()
        assert other.remembered().tolist() == made.remembered().tolist()


def test_a_state_dict_fits_an_object_that_has_chosen_and_a_part_of_a_larger_module() -> None:
    made, other = poem(), poem(take=9)
    for epoch in range(4):
        made.begin(MadeUp(seed=epoch), epoch, COUNT, 8)
    other.begin(MadeUp(seed=77), 0, COUNT, 8)
    torch.nn.ModuleDict({"part": other}).load_state_dict(torch.nn.ModuleDict({"part": made}).state_dict())
    assert other.current().tolist() == made.current().tolist()
    assert other.remembered().tolist() == made.remembered().tolist()
    assert not list(made.parameters())


def test_loading_does_not_tie_two_objects_together() -> None:
    made, other = poem(queue=1), poem(queue=1)
    made.begin(MadeUp(), 0, COUNT, 8)
    other.load_state_dict(made.state_dict())
    kept = other.current().tolist()
    made.begin(MadeUp(seed=5), 1, COUNT, 8)
    assert made.current().tolist() != kept
    assert other.current().tolist() == kept


# Devices.


@each("reading", READINGS)
def test_two_devices_choose_together_what_one_chooses(reading: Any) -> None:
    barrier, given = Barrier(2, timeout=20), [torch.empty(0)] * 2

    def on(rank: int) -> list[list[int]]:
        def total(values: Tensor) -> Tensor:
            given[rank] = values
            barrier.wait()
            found = given[0] + given[1]
            barrier.wait()
            return found

        return choices((rank, 2), total)

    def choices(place: tuple[int, int], total: Callable[[Tensor], Tensor] | None) -> list[list[int]]:
        made, found = poem(reading=reading, pool=30), []
        for epoch in range(4):
            made.begin(MadeUp(epoch, 1, epoch, place, total), epoch, COUNT, 8)
            found.append(made.current().tolist())
        return found

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(on, range(2))
    assert first == second == choices((0, 1), None)


# The lowest scores.


def test_lowest_matches_sorting_with_ties_and_what_is_no_number_last() -> None:
    scores = [3.0, math.nan, -math.inf, 1.0, 1.0, math.inf, -2.0, math.nan, 1.0]
    for count in range(len(scores) + 3):
        order = sorted(range(len(scores)), key=lambda i: (math.inf if math.isnan(scores[i]) else scores[i], i))
        assert lowest(torch.tensor(scores), count).tolist() == order[:count]
    assert lowest(torch.zeros(3000), 5).tolist() == [0, 1, 2, 3, 4]
