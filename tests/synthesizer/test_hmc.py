"""Spherical HMC against loops written from the equations, and against distributions with known moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import iv
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.compose import compose
from ood_lab.geometry.sphere import project_to_tangent
from ood_lab.sampling.chain import Chains, State
from ood_lab.sampling.oodness import neighbour_search, potential_and_gradient
from ood_lab.synthesizer.base import class_midpoints
from ood_lab.synthesizer.hmc import HMC, leapfrog, run_chains
from ood_lab.synthesizer.rmhmc import RMHMC
from ood_lab.task.build import build
from tests.cases import each
from tests.sampling.test_oodness import (
    clusters,
    gradient_naive,
    kth_neighbour_naive,
    normal,
    oodness_naive,
    potential_naive,
    surprise_naive,
    unit,
)

Array = np.ndarray


def chain_naive(
    start: Array,
    bank: Array,
    pair: list[int],
    momentum: Array,
    uniform: Array,
    *,
    neighbor: int,
    leapfrog_steps: int,
    step_size: float,
    kappa: float,
    margin: float,
    density: str,
) -> dict[str, list[Any]]:
    """Algorithm 1, lines 4 to 21, for one chain, with everything computed anew at every step."""
    k = min(neighbor, bank.shape[1])
    identity = np.eye(len(start))

    def neighbours(z: Array) -> list[Array]:
        return [kth_neighbour_naive(z, bank[c], k) for c in pair]

    def half_kick(z: Array, q: Array) -> Array:
        return q - step_size / 2 * (identity - np.outer(z, z)) @ gradient_naive(z, neighbours(z))

    threshold = surprise_naive(start, bank, kappa, density, k) - margin
    z = start
    out: dict[str, list[Any]] = {
        "points": [z],
        "accepted": [],
        "blocked": [],
        "energy_error": [],
        "oodness": [oodness_naive(z, neighbours(z))],
    }
    for noise, u in zip(momentum, uniform, strict=True):
        q = noise - z * float(z @ noise)
        before = potential_naive(z, neighbours(z)) + float(q @ q) / 2
        new = z
        for _ in range(leapfrog_steps):
            q = half_kick(new, q)
            speed = math.sqrt(float(q @ q))
            c, s = math.cos(speed * step_size), math.sin(speed * step_size)
            new, q = new * c + q / speed * s, -new * speed * s + q * c
            q = half_kick(new, q)
        error = potential_naive(new, neighbours(new)) + float(q @ q) / 2 - before
        outside = surprise_naive(new, bank, kappa, density, k) > threshold
        accepted = u < math.exp(-error) and outside
        z = new if accepted else z
        out["points"].append(z)
        out["accepted"].append(accepted)
        out["blocked"].append(not outside)
        out["energy_error"].append(error)
        out["oodness"].append(oodness_naive(z, neighbours(z)))
    return out


def pole(mu: Tensor, kappa: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The smooth potential of a vMF distribution, -kappa mu . z."""
    return lambda z: (-kappa * z @ mu, (-kappa * mu).expand_as(z))


def at(potential: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], State]:
    """The states that the leapfrog walks through."""
    return lambda z: State(z, *potential(z))


# Chains that begin on their neighbours.


def test_where_all_features_are_one_point_chains_leave_it() -> None:
    bank = F.one_hot(torch.zeros(3, 5, dtype=torch.int64), 4).double()
    start, pairs = class_midpoints(bank, 2)
    draws = {"momentum": normal(2, 6, 4), "uniform": torch.full((2, 6), 0.5, dtype=torch.float64)}
    chains = run_chains(start, bank, pairs, **draws, margin=9.0)
    assert chains.points.isfinite().all()
    assert chains.accepted[0].all()


# Leapfrog.


def test_leapfrog_stays_on_the_sphere_with_tangent_momentum_and_returns_the_end_potential() -> None:
    z, mu = unit(6, 5), unit(5, seed=3)
    q, potential = project_to_tangent(z, normal(6, 5, seed=1)), pole(mu, 3.0)
    (end, energy, gradient), q_end = leapfrog(at(potential)(z), q, at(potential), steps=9, step_size=0.2)
    torch.testing.assert_close(end.norm(dim=1), torch.ones(6, dtype=torch.float64), atol=1e-13, rtol=0)
    assert (end * q_end).sum(1).abs().max() < 1e-12
    torch.testing.assert_close(energy, -3 * end @ mu)
    torch.testing.assert_close(gradient, (-3 * mu).expand_as(end))


def test_leapfrog_energy_error_shrinks_with_the_square_of_the_step() -> None:
    z, mu = unit(50, 5), unit(5, seed=3)
    q, potential = project_to_tangent(z, normal(50, 5, seed=1)), pole(mu, 3.0)
    start = potential(z)[0]
    errors = []
    for steps in (5, 10, 20, 40):
        (_, energy, _), q_end = leapfrog(at(potential)(z), q, at(potential), steps=steps, step_size=1 / steps)
        errors.append(float((energy + q_end.square().sum(1) / 2 - start - q.square().sum(1) / 2).abs().mean()))
    assert errors[0] > 1e-3
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.15)


def test_leapfrog_moves_towards_lower_potential_from_rest() -> None:
    z, mu = unit(20, 5), unit(5, seed=3)
    potential = pole(mu, 3.0)
    (end, energy, _), _ = leapfrog(at(potential)(z), torch.zeros_like(z), at(potential), steps=3, step_size=0.1)
    assert (energy < potential(z)[0]).all()
    assert (end @ mu > z @ mu).all()


@each("kind", ["smooth", "neighbours"])
def test_leapfrog_is_reversed_by_the_negated_momentum(kind: str) -> None:
    z, pairs = unit(6, 5), torch.tensor([[0, 1], [1, 2], [2, 0]] * 2)
    q, search = project_to_tangent(z, normal(6, 5, seed=1)), neighbour_search(clusters(3, 8, 5), pairs, 3)
    potential = pole(unit(5, seed=3), 3.0) if kind == "smooth" else lambda x: potential_and_gradient(x, search(x))
    there, q_end = leapfrog(at(potential)(z), q, at(potential), steps=15, step_size=0.1)
    end = there.z
    assert (end - z).norm(dim=1).min() > 0.1
    (back, _, _), q_back = leapfrog(there, -q_end, at(potential), steps=15, step_size=0.1)
    torch.testing.assert_close(back, z, atol=1e-6, rtol=0)
    torch.testing.assert_close(-q_back, q, atol=1e-6, rtol=0)


# The whole chain.

CASES: dict[str, dict[str, Any]] = {
    "paper": {"step_size": 0.5, "leapfrog_steps": 3, "margin": 0.05, "density": "paper", "neighbor": 7},
    "released": {"step_size": 0.5, "leapfrog_steps": 2, "margin": 0.01, "density": "released", "neighbor": 7},
    "nearest": {"step_size": 0.9, "leapfrog_steps": 1, "margin": 0.0, "density": "paper", "neighbor": 1},
    "farthest": {"step_size": 0.4, "leapfrog_steps": 5, "margin": 0.1, "density": "paper", "neighbor": 1000},
}


def both_chains(case: str, dim: int, rounds: int = 8) -> tuple[Chains, list[dict[str, list[Any]]]]:
    options = {"kappa": 2.0, **CASES[case]}
    bank = clusters(4, 30, dim, spread=0.15)
    start, pairs = class_midpoints(bank, 2)
    momentum = normal(rounds, len(start), dim, seed=7)
    uniform = torch.rand(rounds, len(start), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    got = run_chains(start, bank, pairs, momentum=momentum, uniform=uniform, **options)
    expected = [
        chain_naive(
            start[i].numpy(), bank.numpy(), pairs[i].tolist(), momentum[:, i].numpy(), uniform[:, i].numpy(), **options
        )
        for i in range(len(start))
    ]
    return got, expected


@each("dim", [6, 16])
@each("case", list(CASES))
def test_run_chains_is_algorithm_1_chain_by_chain(case: str, dim: int) -> None:
    got, expected = both_chains(case, dim)
    for i, chain in enumerate(expected):
        for name in ("accepted", "blocked"):
            assert getattr(got, name)[:, i].tolist() == [bool(x) for x in chain[name]]
        for name in ("points", "energy_error", "oodness"):
            np.testing.assert_allclose(getattr(got, name)[:, i].numpy(), np.array(chain[name]), atol=1e-8)


def test_the_compared_chains_contain_acceptance_and_both_kinds_of_rejection() -> None:
    chains = [both_chains(case, dim)[0] for case in CASES for dim in (6, 16)]
    accepted = sum(int(c.accepted.sum()) for c in chains)
    by_margin = sum(int(c.blocked.sum()) for c in chains)
    by_metropolis = sum(int((~c.accepted & ~c.blocked).sum()) for c in chains)
    assert min(accepted, by_margin) > 20
    assert by_metropolis > 5


def test_a_rejected_chain_repeats_its_point_and_an_accepted_one_moves() -> None:
    chains = both_chains("paper", 6)[0]
    moved = (chains.points[1:] != chains.points[:-1]).any(2)
    assert torch.equal(moved, chains.accepted)
    assert not chains.accepted[chains.blocked].any()
    assert torch.equal(chains.oodness[1:][~moved], chains.oodness[:-1][~moved])


def test_a_proposal_that_is_not_a_number_is_refused_for_its_chain_alone() -> None:
    bank = clusters(4, 30, 6)
    start, pairs = class_midpoints(bank, 2)
    momentum, uniform = normal(3, len(start), 6, seed=7), torch.zeros(3, len(start), dtype=torch.float64)
    clean = run_chains(start, bank, pairs, momentum=momentum, uniform=uniform, margin=9.0)
    momentum[0, 2] = torch.nan
    broken = run_chains(start, bank, pairs, momentum=momentum, uniform=uniform, margin=9.0)
    assert broken.points.isfinite().all()
    assert torch.equal(broken.points[1, 2], start[2])
    assert not broken.accepted[0, 2]
    assert broken.accepted[1, 2]
    others = torch.arange(len(start)) != 2
    torch.testing.assert_close(broken.points[:, others], clean.points[:, others], atol=1e-12, rtol=0)


def test_chains_leave_their_inputs_alone() -> None:
    bank = clusters(4, 30, 6)
    start, pairs = class_midpoints(bank, 2)
    inputs = [bank, start, normal(2, 8, 6, seed=7), torch.full((2, 8), 0.5, dtype=torch.float64)]
    before = [x.clone() for x in inputs]
    run_chains(start, bank, pairs, momentum=inputs[2], uniform=inputs[3])
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


# Distributions. Chains are independent, so the error of a mean is that of the means of chains.


def assert_mean(values_RB: Tensor, expected: float, max_error: float) -> None:
    """The mean of rounds and chains is `expected` to 4.5 standard errors, and the error is small enough to tell."""
    per_chain = values_RB.mean(0)
    error = float(per_chain.std()) / math.sqrt(len(per_chain))
    assert error < max_error
    assert abs(float(per_chain.mean()) - expected) < 4.5 * error


@each(("dim", "kappa", "step_size"), [(3, 2.0, 0.7), (4, 5.0, 0.45), (5, 3.0, 0.6)])
def test_metropolis_corrected_leapfrog_samples_the_vmf_distribution(dim: int, kappa: float, step_size: float) -> None:
    chains, draw = 600, torch.Generator().manual_seed(dim)
    mu = F.one_hot(torch.tensor(0), dim).double()
    potential = pole(mu, kappa)
    z = F.normalize(torch.randn(chains, dim, generator=draw, dtype=torch.float64), dim=1)
    cosines, rates = [], []
    for step in range(180):
        q = project_to_tangent(z, torch.randn(chains, dim, generator=draw, dtype=torch.float64))
        energy = potential(z)[0]
        (end, energy_end, _), q_end = leapfrog(at(potential)(z), q, at(potential), steps=3, step_size=step_size)
        error = energy_end + q_end.square().sum(1) / 2 - energy - q.square().sum(1) / 2
        take = torch.rand(chains, generator=draw, dtype=torch.float64) < (-error).exp()
        z = torch.where(take[:, None], end, z)
        if step >= 30:
            cosines.append(z @ mu)
            rates.append(take.double().mean())
    mean = iv(dim / 2, kappa) / iv(dim / 2 - 1, kappa)
    if dim == 3:
        assert mean == pytest.approx(1 / math.tanh(kappa) - 1 / kappa)
    assert 0.5 < float(torch.stack(rates).mean()) < 0.99
    assert_mean(torch.stack(cosines), mean, 0.004)
    assert_mean(torch.stack(cosines).square(), 1 - (dim - 1) / kappa * mean, 0.004)


def test_run_chains_samples_the_oodness_of_a_pair_as_density() -> None:
    chains, rounds = 2000, 60
    bank = torch.eye(3, dtype=torch.float64)[:2, None]  # one row a class: the density is (|z - e1| + |z - e2|) / 2
    draw = torch.Generator().manual_seed(5)
    points = run_chains(
        F.normalize(torch.randn(chains, 3, generator=draw, dtype=torch.float64), dim=1),
        bank,
        torch.tensor([[0, 1]]).expand(chains, 2),
        momentum=torch.randn(rounds, chains, 3, generator=draw, dtype=torch.float64),
        uniform=torch.rand(rounds, chains, generator=draw, dtype=torch.float64),
        step_size=0.5,
        leapfrog_steps=3,
        margin=100.0,
    ).points[10:]
    heights, turns = np.meshgrid((np.arange(400) + 0.5) / 200 - 1, (np.arange(400) + 0.5) / 200 * math.pi)
    ring = np.sqrt(1 - heights**2)  # equal areas in height and turn
    x, y = ring * np.cos(turns), ring * np.sin(turns)
    density = (np.sqrt(2 - 2 * x) + np.sqrt(2 - 2 * y)) / 2
    assert_mean(points[..., 0], float((density * x).sum() / density.sum()), 0.003)
    assert_mean(points[..., 0] * points[..., 1], float((density * x * y).sum() / density.sum()), 0.003)
    assert float((density * x).sum() / density.sum()) < -0.1


# The synthesizer.


def sampler(**changes: Any) -> HMC:
    options: dict[str, Any] = {
        "neighbor": 5,
        "adjacent": 2,
        "rounds": 3,
        "leapfrog_steps": 3,
        "step_size": 0.1,
        "momentum": "standard",
        "centroids": "unit",
        "kappa": 2.0,
        "margin": 0.1,
        "density": "paper",
        "midpoint_noise": 0.0,
    }
    return HMC(**{**options, **changes})


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sample_gives_the_midpoints_and_each_round_of_unit_points() -> None:
    bank = clusters(5, 20, 8).float()
    outliers = sampler().draw(bank, draws())
    midpoints, pairs = class_midpoints(bank, 2)
    assert outliers.values.shape == (5 * 2 * 4, 8)
    assert outliers.values.dtype == torch.float32
    torch.testing.assert_close(outliers.values.norm(dim=1), torch.ones(40), atol=1e-6, rtol=0)
    assert torch.equal(outliers.values[:10], midpoints)
    assert outliers.source_class.tolist() == pairs[:, 0].tolist() * 4


def test_sample_reports_acceptance_blocks_and_oodness() -> None:
    info = sampler(margin=100.0, step_size=1e-3).draw(clusters(5, 20, 8).float(), draws()).info
    assert float(info["acceptance"]) == 1
    assert float(info["blocked"]) == 0
    assert 0 < float(info["oodness"]) < 2


def test_neighbor_is_clipped_to_the_rows_of_a_class() -> None:
    bank = clusters(5, 20, 8).float()
    clipped, exact, other = (sampler(neighbor=k).draw(bank, draws()).values for k in (10**6, 20, 1))
    assert torch.equal(clipped, exact)
    assert not torch.equal(clipped, other)


def test_adjacent_is_clipped_to_the_number_of_other_classes() -> None:
    bank = clusters(5, 20, 8).float()
    clipped, exact = (sampler(adjacent=n).draw(bank, draws()).values for n in (99, 4))
    assert len(clipped) == 5 * 4 * 4
    assert torch.equal(clipped, exact)


@each(("momentum", "degrees"), [("standard", 194.0), ("sphere", 17.2)])
def test_a_round_in_128_dimensions_turns_a_chain_as_far_as_the_docstring_says(momentum: str, degrees: float) -> None:
    outliers = sampler(momentum=momentum, margin=100.0, adjacent=4).draw(clusters(10, 30, 128, spread=0.05), draws())
    start, first = outliers.values.view(4, 40, 128)[:2]
    turned = torch.rad2deg((start * first).sum(1).clamp(-1, 1).arccos())
    moved = turned[turned > 0]
    assert len(moved) > 25
    assert float(moved.mean()) == pytest.approx(min(degrees, 360 - degrees), abs=4)


@each("sigma", [0.01, 0.1])
def test_noisy_midpoints_are_unit_vectors_as_far_from_the_midpoints_as_the_noise_is_long(sigma: float) -> None:
    bank = clusters(10, 30, 64).float()
    start = sampler(adjacent=4, midpoint_noise=sigma, rounds=1).draw(bank, draws()).values[:40]
    midpoints, _ = class_midpoints(bank, 4)
    torch.testing.assert_close(start.norm(dim=1), torch.ones(40), atol=1e-6, rtol=0)
    # Of the noise, 63 of 64 directions are tangent: tan of the angle is sigma sqrt(63), give or take the radial part.
    angle = (start * midpoints).sum(1).clamp(-1, 1).arccos()
    assert float(angle.tan().mean()) == pytest.approx(sigma * 63**0.5, rel=0.1)


def test_every_option_reaches_the_chain() -> None:
    bank = clusters(5, 20, 8, spread=0.15).float()
    base = sampler(rounds=6, step_size=0.4).draw(bank, draws()).values
    for change in (
        {"neighbor": 9},
        {"leapfrog_steps": 2},
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


# MALA.


def log_density_of_langevin_naive(z: Array, new: Array, gradient: Array, step_size: float) -> float:
    """Of the proposal `new` from z: a normal tangent vector at z, less half a kick, is the way there over the time."""
    p = np.eye(len(z)) - np.outer(z, z)
    angle = math.acos(float(z @ new))
    way = angle * (p @ new) / np.sqrt(((p @ new) ** 2).sum())
    noise = way / step_size + step_size / 2 * p @ gradient
    return -float(noise @ noise) / 2


def test_one_leapfrog_step_is_the_metropolis_adjusted_langevin_algorithm() -> None:
    """Metropolis and Hastings with the proposals' densities; the sphere's volume is the same there and back."""
    step_size, k = 0.6, 7
    bank = clusters(4, 30, 6, spread=0.15)
    start, pairs = class_midpoints(bank, 2)
    momentum = normal(8, len(start), 6, seed=7)
    uniform = torch.rand(8, len(start), generator=draws(8), dtype=torch.float64)
    got = run_chains(
        start,
        bank,
        pairs,
        momentum=momentum,
        uniform=uniform,
        step_size=step_size,
        leapfrog_steps=1,
        neighbor=k,
        margin=9.0,
    )
    for i, pair in enumerate(pairs.tolist()):
        z = start[i].numpy()
        for number in range(8):
            near = [kth_neighbour_naive(z, bank[c].numpy(), k) for c in pair]
            drift = momentum[number, i].numpy() - step_size / 2 * gradient_naive(z, near)
            v = drift - z * float(z @ drift)
            speed = math.sqrt(float(v @ v))
            new = z * math.cos(speed * step_size) + v / speed * math.sin(speed * step_size)
            assert speed * step_size < math.pi
            near_new = [kth_neighbour_naive(new, bank[c].numpy(), k) for c in pair]
            ratio = (
                oodness_naive(new, near_new)
                / oodness_naive(z, near)
                * math.exp(
                    log_density_of_langevin_naive(new, z, gradient_naive(new, near_new), step_size)
                    - log_density_of_langevin_naive(z, new, gradient_naive(z, near), step_size)
                )
            )
            assert float(got.energy_error[number, i]) == pytest.approx(-math.log(ratio), abs=1e-8)
            assert bool(got.accepted[number, i]) == bool(uniform[number, i] < ratio)
            z = new if uniform[number, i] < ratio else z
            np.testing.assert_allclose(got.points[number + 1, i].numpy(), z, atol=1e-8)
    assert 0.5 < float(got.accepted.double().mean()) < 1


@each(("name", "of"), [("mala", "hmc"), ("mmala", "rmhmc")])
def test_langevin_samplers_are_their_chains_with_one_leapfrog_step(name: str, of: str) -> None:
    langevin, whole = (compose(["method=hamos", f"synthesizer={x}"]).plain("synthesizer") for x in (name, of))
    assert langevin["leapfrog_steps"] == 1
    assert whole["leapfrog_steps"] > 1
    assert langevin == {**whole, "leapfrog_steps": 1}
    built: Any = build(langevin)
    assert built.options["leapfrog_steps"] == 1
    assert type(built) is {"hmc": HMC, "rmhmc": RMHMC}[of]
