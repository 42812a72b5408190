"""Simplified RMHMC against a loop with explicit matrices, and against distributions with known moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import iv
from torch import Tensor
from torch.nn import functional as F

from ood_lab.geometry.sphere import project_to_tangent
from ood_lab.sampling.chain import Chains, State
from ood_lab.synthesizer import hmc
from ood_lab.synthesizer.base import class_midpoints
from ood_lab.synthesizer.hmc import leapfrog
from ood_lab.synthesizer.rmhmc import RMHMC, Metric, run_chains
from tests.cases import each
from tests.sampling.test_oodness import (
    clusters,
    gradient_naive,
    kth_neighbour_naive,
    normal,
    unit,
)
from tests.synthesizer.test_hmc import assert_mean, at, draws, pole
from tests.synthesizer.test_random_walk import (
    assert_all_fates,
    assert_same_chains,
    great_circle_naive,
    metropolis_naive,
    potential_at,
    scene,
)

Array = np.ndarray

# The equations, one point at a time.


def tangent_projection(z: Array) -> Array:
    return np.eye(len(z)) - np.outer(z, z)


def metric_naive(states: list[Array], s: float) -> tuple[float, Array, Array]:
    """Of A = s I + G' G the weight of I, the rows of G, and A."""
    m, dim = len(states), len(states[0])
    mean = sum(states, np.zeros(dim)) / m
    if all(np.array_equal(z, states[0]) for z in states):
        return 1.0, np.zeros((m, dim)), np.eye(dim)
    covariance = np.zeros((dim, dim))
    for z in states:
        covariance += np.outer(z - mean, z - mean) / m
    trace = float(np.trace(covariance))
    rows = [math.sqrt((1 - s) * dim / (trace * m)) * (z - mean) for z in states]
    return s, np.array(rows), s * np.eye(dim) + (1 - s) * dim * covariance / trace


def kinetic_naive(z: Array, v: Array, a: Array) -> float:
    """v' (P A P)^+ v / 2 + log pdet(P A P) / 2."""
    pap = tangent_projection(z) @ a @ tangent_projection(z)
    values = np.linalg.eigvalsh(pap)[1:]  # the smallest is the radial one, 0
    return float(v @ np.linalg.pinv(pap, rcond=1e-10, hermitian=True) @ v + np.log(values).sum()) / 2


def chain_naive(
    start: Array,
    bank: Array,
    pair: list[int],
    momentum: Array,
    history: Array,
    uniform: Array,
    *,
    leapfrog_steps: int,
    step_size: float,
    shrinkage: float,
    **options: Any,
) -> dict[str, list[Any]]:
    k = min(options["neighbor"], bank.shape[1])

    def propose(number: int, points: list[Array]) -> tuple[Array, float]:
        states = points[-history.shape[1] :]
        s, rows, a = metric_naive(states, shrinkage)
        z = points[-1]
        drawn = math.sqrt(s) * momentum[number]
        for h, row in zip(history[number], rows, strict=False):
            drawn = drawn + h * row
        v = tangent_projection(z) @ drawn
        before = potential_at(z, bank, pair, k) + kinetic_naive(z, v, a)
        for _ in range(leapfrog_steps):
            v = half_kick(z, v, a)
            z, v = great_circle_naive(z, v, step_size)
            v = half_kick(z, v, a)
        return z, potential_at(z, bank, pair, k) + kinetic_naive(z, v, a) - before

    def half_kick(z: Array, v: Array, a: Array) -> Array:
        p = tangent_projection(z)
        gradient = gradient_naive(z, [kth_neighbour_naive(z, bank[c], k) for c in pair])
        return v - step_size / 2 * p @ a @ p @ gradient

    return metropolis_naive(propose, start, bank, pair, uniform, **options)


# The whole chain.

CASES: dict[str, dict[str, Any]] = {
    "paper": {"step_size": 0.4, "leapfrog_steps": 3, "shrinkage": 0.5, "margin": 0.05, "density": "paper"},
    "langevin": {"step_size": 0.7, "leapfrog_steps": 1, "shrinkage": 0.1, "margin": 0.0, "density": "paper"},
    "released": {"step_size": 0.3, "leapfrog_steps": 2, "shrinkage": 0.1, "margin": 0.01, "density": "released"},
    "identity": {"step_size": 0.4, "leapfrog_steps": 3, "shrinkage": 1.0, "margin": 0.1, "density": "paper"},
    "small steps": {"step_size": 0.05, "leapfrog_steps": 3, "shrinkage": 0.1, "margin": 1.0, "density": "paper"},
}
ROUNDS = 7


def histories(count: int, chains: int) -> Tensor:
    return normal(ROUNDS, chains, count, seed=9)


def samples(case: str, dim: int, states: int) -> Chains:
    start, bank, pairs, momentum, uniform = scene(dim, ROUNDS)
    history = histories(states, len(start))
    options = {"kappa": 2.0, "neighbor": 7, **CASES[case]}
    return run_chains(start, bank, pairs, momentum=momentum, history=history, uniform=uniform, **options)


@each(("dim", "states"), [(6, 3), (16, 3), (6, 1), (6, 2), (3, 5)])
@each("case", list(CASES))
def test_run_chains_is_the_loop_chain_by_chain(case: str, dim: int, states: int) -> None:
    start, bank, pairs, momentum, uniform = (x.numpy() for x in scene(dim, ROUNDS))
    history = histories(states, len(start)).numpy()
    options = {"kappa": 2.0, "neighbor": 7, **CASES[case]}
    expected = [
        chain_naive(start[i], bank, pairs[i].tolist(), momentum[:, i], history[:, i], uniform[:, i], **options)
        for i in range(len(start))
    ]
    assert_same_chains(samples(case, dim, states), expected)


def test_the_compared_chains_contain_acceptance_and_both_kinds_of_refusal() -> None:
    assert_all_fates([samples(case, dim, 3) for case in CASES for dim in (6, 16)])


def test_a_chain_that_stays_moves_by_hmc_until_it_has_moved() -> None:
    """Three equal points, whose mean need not be the point itself, have no covariance."""
    start, bank, pairs, momentum, uniform = scene(6, rounds=4)
    uniform[:3] = 1e9
    options: dict[str, Any] = {"momentum": momentum, "uniform": uniform, "neighbor": 7, "margin": 9.0}
    stayed = run_chains(start, bank, pairs, history=100 * normal(4, 8, 3), shrinkage=0.1, **options)
    expected = hmc.run_chains(start, bank, pairs, **options)
    assert torch.equal(stayed.points[3], start)
    assert stayed.accepted[3].any()
    torch.testing.assert_close(stayed.points, expected.points, atol=1e-12, rtol=0)
    torch.testing.assert_close(stayed.energy_error, expected.energy_error, atol=1e-12, rtol=0)


@each("steps", [1, 3])
def test_shrinkage_1_is_hmc(steps: int) -> None:
    start, bank, pairs, momentum, uniform = scene(6, rounds=7)
    options: dict[str, Any] = {"momentum": momentum, "uniform": uniform, "step_size": 0.5, "neighbor": 7}
    options |= {"leapfrog_steps": steps}
    got = run_chains(start, bank, pairs, history=histories(3, 8), shrinkage=1.0, **options)
    expected = hmc.run_chains(start, bank, pairs, **options)
    for name in ("points", "accepted", "blocked", "oodness"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    torch.testing.assert_close(got.energy_error, expected.energy_error, atol=1e-12, rtol=0)


def test_only_the_last_states_count() -> None:
    start, bank, pairs, momentum, uniform = scene(6, rounds=4)
    chains = [
        run_chains(start, bank, pairs, momentum=momentum[:4], history=history, uniform=0 * uniform, margin=9.0)
        for history in (histories(2, 8), histories(3, 8))
    ]
    assert torch.equal(chains[0].points[1], chains[1].points[1])
    assert not torch.equal(chains[0].points[-1], chains[1].points[-1])


# The metric.

CHAINS, DIM = 5, 6


def some_states(count: int) -> list[Tensor]:
    """A few unit points a chain, near one another."""
    centre = unit(CHAINS, DIM)
    return [F.normalize(centre + 0.3 * normal(CHAINS, DIM, seed=10 + i), dim=1) for i in range(count)]


def dense(metric: Metric) -> Tensor:
    """A of each chain, which is velocities' covariance before the projection."""
    eye = torch.eye(metric.factor.shape[2], dtype=metric.factor.dtype)
    return metric.shrinkage[:, None, None] * eye + metric.factor.mT @ metric.factor


def naive_metrics(states: list[Tensor], s: float) -> list[Array]:
    return [metric_naive([z[i].numpy() for z in states], s)[2] for i in range(len(states[0]))]


@each("s", [0.1, 0.5, 1.0])
@each("count", [1, 2, 3, 7])
def test_metric_is_that_of_the_equation_and_has_the_trace_of_the_identity(count: int, s: float) -> None:
    states = some_states(count)
    a = dense(Metric.of_states(states, s))
    np.testing.assert_allclose(a.numpy(), np.array(naive_metrics(states, s)), atol=1e-12)
    trace = torch.full((CHAINS,), DIM, dtype=torch.float64)
    torch.testing.assert_close(a.diagonal(dim1=1, dim2=2).sum(1), trace, atol=1e-12, rtol=0)


@each("s", [0.1, 0.5])
def test_metric_keeps_the_precision_of_the_states(s: float) -> None:
    metric = Metric.of_states(some_states(3), s)
    assert metric.shrinkage.dtype == torch.float64
    assert metric.shrinkage.tolist() == [s] * CHAINS


@each("dtype", [torch.float32, torch.float64])
@each("count", [1, 2, 3, 7])
def test_metric_of_equal_states_is_the_identity(count: int, dtype: torch.dtype) -> None:
    z = unit(500, DIM).to(dtype)
    a = dense(Metric.of_states([z] * count, 0.1))
    torch.testing.assert_close(a, torch.eye(DIM, dtype=dtype).expand(500, DIM, DIM), atol=1e-6, rtol=0)


def test_one_chain_that_stays_leaves_the_metrics_of_the_others_alone() -> None:
    states = some_states(3)
    mixed = [states[0], *(torch.cat([states[0][:1], z[1:]]) for z in states[1:])]
    a, b = dense(Metric.of_states(states, 0.3)), dense(Metric.of_states(mixed, 0.3))
    assert torch.equal(a[1:], b[1:])
    torch.testing.assert_close(b[0], torch.eye(DIM, dtype=torch.float64))


@each("s", [0.1, 0.5, 1.0])
def test_velocities_are_tangent_and_have_the_projected_metric_as_covariance(s: float) -> None:
    states, z = some_states(3), unit(CHAINS, DIM, seed=3)
    metric, zero = Metric.of_states(states, s), torch.zeros(CHAINS, DIM + 3, dtype=torch.float64)
    columns = []
    for j in range(DIM + 3):  # a velocity is linear in its independent normal numbers
        e = zero.clone()
        e[:, j] = 1
        columns.append(metric.velocity(z, e[:, :DIM], e[:, DIM:]))
    root = torch.stack(columns, dim=2)
    assert (z[:, :, None] * root).sum(1).abs().max() < 1e-12
    for i, a in enumerate(naive_metrics(states, s)):
        p = tangent_projection(z[i].numpy())
        np.testing.assert_allclose((root[i] @ root[i].T).numpy(), p @ a @ p, atol=1e-12)


@each("s", [0.1, 0.5, 1.0])
@each("count", [1, 2, 3, 7])
def test_kinetic_energy_is_that_of_the_matrices_up_to_a_constant_of_the_metric(count: int, s: float) -> None:
    states = some_states(count)
    metric = Metric.of_states(states, s)
    points = [unit(CHAINS, DIM, seed=3), *some_states(2)]
    velocities = [project_to_tangent(z, normal(CHAINS, DIM, seed=20 + i)) for i, z in enumerate(points)]
    got = [metric.kinetic(z, v) for z, v in zip(points, velocities, strict=True)]
    for i, a in enumerate(naive_metrics(states, s)):
        expected = [kinetic_naive(z[i].numpy(), v[i].numpy(), a) for z, v in zip(points, velocities, strict=True)]
        for n in (1, 2):
            assert float(got[n][i] - got[0][i]) == pytest.approx(expected[n] - expected[0], abs=1e-10)


def test_force_is_the_projected_metric_times_the_gradient() -> None:
    states, z, gradient = some_states(3), unit(CHAINS, DIM, seed=3), normal(CHAINS, DIM, seed=4)
    force = Metric.of_states(states, 0.3).times_gradient(State(z, gradient[:, 0], gradient))
    for i, a in enumerate(naive_metrics(states, 0.3)):
        p = tangent_projection(z[i].numpy())
        np.testing.assert_allclose(force[i].numpy(), p @ a @ p @ gradient[i].numpy(), atol=1e-12)


def test_a_trajectory_is_reversed_by_the_negated_velocity_and_its_energy_error_with_it() -> None:
    z, potential, metric = some_states(1)[0], at(pole(unit(DIM, seed=3), 3.0)), Metric.of_states(some_states(3), 0.1)
    v = metric.velocity(z, normal(CHAINS, DIM, seed=4), normal(CHAINS, 3, seed=5))

    def energy(state: State, velocity: Tensor) -> Tensor:
        return state.energy + metric.kinetic(state.z, velocity)

    here = potential(z)
    there, v_end = leapfrog(here, v, potential, steps=5, step_size=0.2, force=metric.times_gradient)
    back, v_back = leapfrog(there, -v_end, potential, steps=5, step_size=0.2, force=metric.times_gradient)
    assert (there.z - z).norm(dim=1).min() > 0.1
    assert (energy(there, v_end) - energy(here, v)).abs().min() > 1e-3
    torch.testing.assert_close(back.z, z, atol=1e-12, rtol=0)
    torch.testing.assert_close(-v_back, v, atol=1e-12, rtol=0)
    torch.testing.assert_close(energy(back, v_back), energy(here, v), atol=1e-10, rtol=0)


# Distributions. Chains are independent, so the error of a mean is that of the means of chains.

Kinetic = Callable[[Metric, Tensor, Tensor], Tensor]


def without_metric(metric: Metric, z: Tensor, v: Tensor) -> Tensor:
    return v.square().sum(1) / 2


def without_determinant(metric: Metric, z: Tensor, v: Tensor) -> Tensor:
    p = torch.eye(z.shape[1], dtype=z.dtype) - z[:, :, None] * z[:, None]
    return (v * (torch.linalg.pinv(p @ dense(metric) @ p, rtol=1e-10) @ v[:, :, None]).squeeze(2)).sum(1) / 2


def vmf_cosines(kinetic: Kinetic, steps: int, kappa: float) -> tuple[Tensor, float]:
    """mu . z of chains that share one metric, whose long axis is near mu, and how many proposals are taken."""
    chains, dim, draw = 600, 3, draws(steps)
    mu = F.one_hot(torch.tensor(0), dim).double()
    potential = at(pole(mu, kappa))
    axes = F.normalize(torch.tensor([[0.9, 0.4, 0.0], [-0.9, 0.4, 0.2], [0.3, 0.9, 0.1]]).double(), dim=1)
    metric = Metric.of_states([axis.expand(chains, dim) for axis in axes], 0.3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    z, cosines, taken = F.normalize(random(chains, dim), dim=1), [], []
    for number in range(140):
        here, v = potential(z), metric.velocity(z, random(chains, dim), random(chains, 3))
        there, v_end = leapfrog(here, v, potential, steps=steps, step_size=0.5, force=metric.times_gradient)
        error = there.energy + kinetic(metric, there.z, v_end) - here.energy - kinetic(metric, z, v)
        take = torch.rand(chains, generator=draw, dtype=torch.float64) < (-error).exp()
        z = torch.where(take[:, None], there.z, z)
        if number >= 20:
            cosines.append(z @ mu)
            taken.append(take.double().mean())
    return torch.stack(cosines), float(torch.stack(taken).mean())


@each("steps", [1, 3])
def test_metropolis_corrected_leapfrog_of_a_fixed_metric_samples_the_vmf_distribution(steps: int) -> None:
    kappa = 2.0
    cosines, rate = vmf_cosines(Metric.kinetic, steps, kappa)
    mean = iv(1.5, kappa) / iv(0.5, kappa)
    assert 0.3 < rate < 0.99
    assert_mean(cosines, mean, 0.006)
    assert_mean(cosines.square(), 1 - 2 / kappa * mean, 0.006)


@each("kinetic", [without_metric, without_determinant])
@each("steps", [1, 3])
def test_another_kinetic_energy_samples_something_else(kinetic: Kinetic, steps: int) -> None:
    squares = vmf_cosines(kinetic, steps, 2.0)[0].square().mean(0)
    error = float(squares.std()) / math.sqrt(len(squares))
    assert abs(float(squares.mean()) - 1 + iv(1.5, 2.0) / iv(0.5, 2.0)) > 12 * error


# The synthesizer.


def sampler(**changes: Any) -> RMHMC:
    options: dict[str, Any] = {
        "neighbor": 5,
        "adjacent": 2,
        "rounds": 3,
        "leapfrog_steps": 3,
        "states": 3,
        "shrinkage": 0.5,
        "step_size": 0.1,
        "momentum": "standard",
        "centroids": "unit",
        "kappa": 2.0,
        "margin": 0.1,
        "density": "paper",
        "midpoint_noise": 0.0,
    }
    return RMHMC(**{**options, **changes})


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
        {"neighbor": 9},
        {"leapfrog_steps": 2},
        {"states": 2},
        {"shrinkage": 0.6},
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


@each(("momentum", "deviation"), [("standard", 1.0), ("sphere", 0.125)])
def test_both_kinds_of_normal_numbers_have_the_deviation_that_momentum_names(momentum: str, deviation: float) -> None:
    source, start = sampler(momentum=momentum, rounds=20), unit(200, 64)
    history = source.draws(draws(), start)["history"]
    assert history.shape == (20, 200, 3)
    assert float(history.std()) == pytest.approx(deviation, rel=0.05)
    assert source.scale(start) == deviation
