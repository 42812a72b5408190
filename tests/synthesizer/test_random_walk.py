"""Random walk on the sphere against a loop from the equations, and against a distribution with known moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.sampling.chain import Chains
from ood_lab.synthesizer.base import class_midpoints
from ood_lab.synthesizer.random_walk import RandomWalk, run_chains
from tests.cases import each
from tests.sampling.test_oodness import (
    clusters,
    kth_neighbour_naive,
    normal,
    oodness_naive,
    potential_naive,
    surprise_naive,
)
from tests.synthesizer.test_hmc import assert_mean, draws

Array = np.ndarray
Propose = Callable[[int, list[Array]], tuple[Array, float]]

# The equations, one point at a time.


def potential_at(z: Array, bank: Array, pair: list[int], neighbor: int) -> float:
    k = min(neighbor, bank.shape[1])
    return potential_naive(z, [kth_neighbour_naive(z, bank[c], k) for c in pair])


def great_circle_naive(z: Array, v: Array, time: float) -> tuple[Array, Array]:
    """The point and the velocity after `time` on the great circle that leaves z with velocity v."""
    speed = math.sqrt(float(v @ v))
    c, s = math.cos(speed * time), math.sin(speed * time)
    return z * c + v / speed * s, -z * speed * s + v * c


def metropolis_naive(
    propose: Propose,
    start: Array,
    bank: Array,
    pair: list[int],
    uniform: Array,
    *,
    neighbor: int,
    kappa: float,
    margin: float,
    density: str,
) -> dict[str, list[Any]]:
    """One chain; `propose` gives from the points so far the next one, and the energy there less that at the last."""
    k = min(neighbor, bank.shape[1])
    threshold = surprise_naive(start, bank, kappa, density, k) - margin
    points = [start]
    out: dict[str, list[Any]] = {"points": points, "accepted": [], "blocked": [], "energy_error": []}
    for number, u in enumerate(uniform):
        new, error = propose(number, points)
        outside = surprise_naive(new, bank, kappa, density, k) > threshold
        accepted = bool(outside and u < math.exp(-error))
        points.append(new if accepted else points[-1])
        out["accepted"].append(accepted)
        out["blocked"].append(not outside)
        out["energy_error"].append(error)
    out["oodness"] = [oodness_naive(z, [kth_neighbour_naive(z, bank[c], k) for c in pair]) for z in points]
    return out


def walk_naive(
    start: Array, bank: Array, pair: list[int], steps: Array, uniform: Array, *, step_size: float, **options: Any
) -> dict[str, list[Any]]:
    def propose(number: int, points: list[Array]) -> tuple[Array, float]:
        z = points[-1]
        tangent = (np.eye(len(z)) - np.outer(z, z)) @ steps[number]
        new, _ = great_circle_naive(z, tangent, step_size)
        energy, new_energy = (potential_at(x, bank, pair, options["neighbor"]) for x in (z, new))
        return new, new_energy - energy

    return metropolis_naive(propose, start, bank, pair, uniform, **options)


def assert_same_chains(got: Chains, expected: list[dict[str, list[Any]]]) -> None:
    for i, chain in enumerate(expected):
        for name in ("accepted", "blocked"):
            assert getattr(got, name)[:, i].tolist() == chain[name], name
        for name in ("points", "energy_error", "oodness"):
            np.testing.assert_allclose(getattr(got, name)[:, i].numpy(), np.array(chain[name]), atol=1e-8, err_msg=name)


def assert_all_fates(chains: list[Chains]) -> None:
    """Acceptance and refusal by the margin often, by the Metropolis test at least sometimes."""
    assert min(sum(int(c.accepted.sum()) for c in chains), sum(int(c.blocked.sum()) for c in chains)) > 20
    assert sum(int((~c.accepted & ~c.blocked).sum()) for c in chains) > 5


# The whole chain.

CASES: dict[str, dict[str, Any]] = {
    "paper": {"step_size": 0.5, "margin": 0.05, "density": "paper", "neighbor": 7},
    "released": {"step_size": 0.5, "margin": 0.01, "density": "released", "neighbor": 7},
    "nearest": {"step_size": 0.9, "margin": 0.0, "density": "paper", "neighbor": 1},
    "farthest": {"step_size": 0.2, "margin": 0.1, "density": "paper", "neighbor": 1000},
}


def scene(dim: int, rounds: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Start, bank, pairs, normal numbers and uniform ones of eight chains."""
    bank = clusters(4, 15, dim, spread=0.15)
    start, pairs = class_midpoints(bank, 2)
    uniform = torch.rand(rounds, len(start), generator=draws(8), dtype=torch.float64)
    return start, bank, pairs, normal(rounds, len(start), dim, seed=7), uniform


def walks(case: str, dim: int) -> Chains:
    start, bank, pairs, steps, uniform = scene(dim, rounds=8)
    return run_chains(start, bank, pairs, steps=steps, uniform=uniform, kappa=2.0, **CASES[case])


@each("dim", [6, 16])
@each("case", list(CASES))
def test_run_chains_is_the_loop_chain_by_chain(case: str, dim: int) -> None:
    start, bank, pairs, steps, uniform = (x.numpy() for x in scene(dim, rounds=8))
    expected = [
        walk_naive(start[i], bank, pairs[i].tolist(), steps[:, i], uniform[:, i], kappa=2.0, **CASES[case])
        for i in range(len(start))
    ]
    assert_same_chains(walks(case, dim), expected)


def test_the_compared_chains_contain_acceptance_and_both_kinds_of_refusal() -> None:
    assert_all_fates([walks(case, dim) for case in CASES for dim in (6, 16)])


def test_the_normal_part_of_a_step_does_not_count() -> None:
    start, bank, pairs, steps, uniform = scene(6, rounds=1)
    tall = steps + 3 * start
    a, b = (run_chains(start, bank, pairs, steps=x, uniform=uniform, step_size=0.4).points for x in (steps, tall))
    torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_a_step_is_as_long_as_the_tangent_part_of_its_number_times_the_step_size() -> None:
    start, bank, pairs, steps, uniform = scene(6, rounds=1)
    chains = run_chains(start, bank, pairs, steps=steps, uniform=0 * uniform, step_size=0.1, margin=9.0)
    assert chains.accepted.all()
    tangent = steps[0] - (steps[0] * start).sum(1, keepdim=True) * start
    angle = (chains.points[0] * chains.points[1]).sum(1).arccos()
    torch.testing.assert_close(angle, 0.1 * tangent.norm(dim=1), atol=1e-9, rtol=0)


@each("step_size", [0.8, 2.0])
def test_run_chains_samples_the_oodness_of_a_pair_as_density(step_size: float) -> None:
    chains, rounds = 2000, 80
    bank = torch.eye(3, dtype=torch.float64)[:2, None]  # one row a class: the density is (|z - e1| + |z - e2|) / 2
    draw = draws(5)
    points = run_chains(
        F.normalize(torch.randn(chains, 3, generator=draw, dtype=torch.float64), dim=1),
        bank,
        torch.tensor([[0, 1]]).expand(chains, 2),
        steps=torch.randn(rounds, chains, 3, generator=draw, dtype=torch.float64),
        uniform=torch.rand(rounds, chains, generator=draw, dtype=torch.float64),
        step_size=step_size,
        margin=100.0,
    ).points[20:]
    x, y, density = pair_density()
    assert_mean(points[..., 0], float((density * x).sum() / density.sum()), 0.004)
    assert_mean(points[..., 0] * points[..., 1], float((density * x * y).sum() / density.sum()), 0.004)
    assert_mean(points[..., 2].square(), float((density * (1 - x**2 - y**2)).sum() / density.sum()), 0.004)


def pair_density() -> tuple[Array, Array, Array]:
    """(|z - e1| + |z - e2|) / 2 at points x, y that have equal areas of the sphere."""
    heights, turns = np.meshgrid((np.arange(400) + 0.5) / 200 - 1, (np.arange(400) + 0.5) / 200 * math.pi)
    ring = np.sqrt(1 - heights**2)
    x, y = ring * np.cos(turns), ring * np.sin(turns)
    return x, y, (np.sqrt(2 - 2 * x) + np.sqrt(2 - 2 * y)) / 2


# The synthesizer.


def sampler(**changes: Any) -> RandomWalk:
    options: dict[str, Any] = {
        "neighbor": 5,
        "adjacent": 2,
        "rounds": 3,
        "step_size": 0.1,
        "momentum": "standard",
        "centroids": "unit",
        "kappa": 2.0,
        "margin": 0.1,
        "density": "paper",
        "midpoint_noise": 0.0,
    }
    return RandomWalk(**{**options, **changes})


def test_draw_gives_the_midpoints_and_each_round_of_unit_points() -> None:
    bank = clusters(5, 20, 8).float()
    outliers = sampler().draw(bank, draws())
    midpoints, pairs = class_midpoints(bank, 2)
    assert outliers.values.shape == (5 * 2 * 4, 8)
    torch.testing.assert_close(outliers.values.norm(dim=1), torch.ones(40), atol=1e-6, rtol=0)
    assert torch.equal(outliers.values[:10], midpoints)
    assert outliers.source_class.tolist() == pairs[:, 0].tolist() * 4


def test_every_option_reaches_the_chain() -> None:
    bank = clusters(5, 20, 8, spread=0.15).float()
    base = sampler(rounds=6, step_size=0.4).draw(bank, draws()).values
    for change in (
        {"neighbor": 19},
        {"step_size": 0.41},
        {"momentum": "sphere"},
        {"centroids": "raw"},
        {"kappa": 10.0},
        {"margin": 2.0},
        {"density": "released"},
        {"midpoint_noise": 0.01},
    ):
        other = sampler(**{"rounds": 6, "step_size": 0.4, **change}).draw(bank, draws()).values
        assert not torch.equal(base, other), change
