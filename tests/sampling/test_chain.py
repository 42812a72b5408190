"""Chains of a made-up target and kernel against a loop, what is logged of chains, and where HamOS's chains go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ood_lab.sampling.chain import Chains, Proposal, State, run
from ood_lab.synthesizer import hmc, random_walk, rmhmc
from ood_lab.synthesizer.base import class_midpoints, reports
from tests.cases import each
from tests.sampling.test_oodness import (
    clusters,
    normal,
)
from tests.synthesizer.test_hmc import draws

ROUNDS, CHAINS = 12, 30


class Columns:
    """A point is its potential, its surprise, and a number that names it."""

    def state(self, z: Tensor) -> State:
        return State(z, z[:, 0], 10 * z)

    def surprise(self, z: Tensor) -> Tensor:
        return z[:, 1]


class Table:
    """Proposes the points of a table, and keeps what it was told."""

    def __init__(self, points: Tensor, errors: Tensor) -> None:
        self.points, self.errors = points, errors
        self.calls: list[tuple[int, State, list[Tensor]]] = []

    def __call__(self, number: int, here: State, points: Sequence[Tensor]) -> Proposal:
        self.calls.append((number, here, list(points)))
        return Proposal(Columns().state(self.points[number]), self.errors[number])


def tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Start, proposals, energy errors (some of them not numbers, or not finite) and uniform numbers."""
    proposals, errors = normal(ROUNDS, CHAINS, 3, seed=1), normal(ROUNDS, CHAINS, seed=2)
    for i, value in enumerate((math.nan, math.inf, -math.inf, 1e6, -1e6)):
        errors[i::5, i] = value
    proposals[2, 7:9] = math.nan
    uniform = torch.rand(ROUNDS, CHAINS, generator=draws(3), dtype=torch.float64)
    uniform[:, 20] = 0
    return normal(CHAINS, 3), proposals, errors, uniform


def walk(start: Tensor, proposals: Tensor, errors: Tensor, uniform: Tensor, margin: float) -> tuple[Chains, Table]:
    kernel, target = Table(proposals, errors), Columns()
    made_up: Any = target
    return run(made_up, kernel, start, uniform, margin), kernel


@each("margin", [0.0, 0.4, 100.0])
def test_run_is_the_loop_chain_by_chain(margin: float) -> None:
    start, proposals, errors, uniform = tables()
    got, _ = walk(start, proposals, errors, uniform, margin)
    for i in range(CHAINS):
        here = start[i].tolist()
        points, accepted, blocked = [here], [], []
        for number in range(ROUNDS):
            new, error, u = proposals[number, i].tolist(), float(errors[number, i]), float(uniform[number, i])
            inside = new[1] <= float(start[i, 1]) - margin
            likely = error < 0 or u < math.exp(-error)  # neither is true of what is not a number
            taken = likely and new[1] > float(start[i, 1]) - margin
            here = new if taken else here
            points.append(here)
            accepted.append(taken)
            blocked.append(inside)
        assert got.points[:, i].tolist() == points
        assert got.accepted[:, i].tolist() == accepted
        assert got.blocked[:, i].tolist() == blocked
        assert got.oodness[:, i].tolist() == pytest.approx([math.exp(-z[0]) for z in points], rel=1e-12)
    torch.testing.assert_close(got.energy_error, errors, equal_nan=True, atol=0, rtol=0)


def test_a_chain_is_never_both_taken_and_blocked_and_each_fate_occurs() -> None:
    chains, _ = walk(*tables(), margin=0.4)
    assert not (chains.accepted & chains.blocked).any()
    for fate in (chains.accepted, chains.blocked, ~chains.accepted & ~chains.blocked):
        assert int(fate.sum()) > 20


def test_a_point_is_recorded_again_where_its_chain_stays() -> None:
    chains, _ = walk(*tables(), margin=0.4)
    stayed = (chains.points[1:] == chains.points[:-1]).all(2)
    assert torch.equal(stayed, ~chains.accepted)
    assert torch.equal(chains.oodness[1:][stayed], chains.oodness[:-1][stayed])
    assert chains.points.shape == (ROUNDS + 1, CHAINS, 3)


@each("part", ["points", "error"])
def test_a_proposal_that_is_not_a_number_is_refused_for_its_chain_alone(part: str) -> None:
    start, _, _, uniform = tables()
    proposals, errors = normal(ROUNDS, CHAINS, 3, seed=1), normal(ROUNDS, CHAINS, seed=2)
    clean, _ = walk(start, proposals, errors, uniform, 0.4)
    chain = int(clean.accepted[3].nonzero()[0])
    (proposals if part == "points" else errors)[3, chain] = math.nan
    broken, _ = walk(start, proposals, errors, uniform, 0.4)
    assert broken.points.isfinite().all()
    assert not broken.accepted[3, chain]
    assert not broken.blocked[3, chain]
    assert torch.equal(broken.points[4, chain], broken.points[3, chain])
    others = torch.arange(CHAINS) != chain
    for a, b in zip(broken, clean, strict=True):
        assert torch.equal(a[:, others], b[:, others])


def test_a_proposal_at_the_margin_is_refused_and_one_above_is_taken() -> None:
    start = torch.tensor([[0.0, 0.5, 0.0]]).double().expand(2, 3)
    proposals = torch.tensor([[[0.0, 0.25, 1.0], [0.0, 0.26, 1.0]]]).double()
    chains, _ = walk(start, proposals, torch.zeros(1, 2).double(), torch.zeros(1, 2).double(), 0.25)
    assert chains.accepted.tolist() == [[False, True]]
    assert chains.blocked.tolist() == [[True, False]]


def test_the_margin_is_that_of_the_start_however_far_the_chain_has_gone() -> None:
    start = torch.zeros(1, 3).double()
    proposals = torch.tensor([[[0.0, 5.0, 1.0]], [[0.0, -0.05, 2.0]], [[0.0, -0.2, 3.0]]]).double()
    chains, _ = walk(start, proposals, torch.zeros(3, 1).double(), torch.zeros(3, 1).double(), 0.1)
    assert chains.points[:, 0, 2].tolist() == [0, 1, 2, 2]


def test_the_kernel_is_told_the_round_the_state_and_the_points_so_far() -> None:
    chains, kernel = walk(*tables(), margin=0.4)
    assert [number for number, _, _ in kernel.calls] == list(range(ROUNDS))
    for number, here, points in kernel.calls:
        assert torch.equal(torch.stack(points), chains.points[: number + 1])
        for told, expected in zip(here, Columns().state(chains.points[number]), strict=True):
            assert torch.equal(told, expected)


def test_chains_leave_their_inputs_alone_and_carry_no_gradient() -> None:
    inputs = tables()
    before = [x.clone() for x in inputs]
    inputs[0].requires_grad_()
    chains, _ = walk(*inputs, margin=0.4)
    for a, b in zip(inputs, before, strict=True):
        torch.testing.assert_close(a.detach(), b, equal_nan=True, atol=0, rtol=0)
    assert not any(value.requires_grad for value in chains)


# What is logged.


def test_shares_of_a_round_add_to_one_and_are_those_of_its_chains() -> None:
    chains, _ = walk(*tables(), margin=0.4)
    info = {name: float(value) for name, value in reports(chains).items()}
    for number in range(1, ROUNDS + 1):
        taken, blocked = (sum(fate[number - 1].tolist()) / CHAINS for fate in (chains.accepted, chains.blocked))
        assert info[f"round_{number}/acceptance"] == pytest.approx(taken)
        assert info[f"round_{number}/margin"] == pytest.approx(blocked)
        assert info[f"round_{number}/metropolis"] == pytest.approx(1 - taken - blocked)
        assert 0 < info[f"round_{number}/metropolis"] < 1
    assert info["acceptance"] == pytest.approx(float(chains.accepted.double().mean()))
    assert info["blocked"] == pytest.approx(float(chains.blocked.double().mean()))


def test_oodness_of_round_0_is_that_of_the_start() -> None:
    start, proposals, errors, uniform = tables()
    chains, _ = walk(start, proposals, errors, uniform, margin=0.4)
    info = {name: float(value) for name, value in reports(chains).items()}
    assert info["round_0/oodness"] == pytest.approx(float((-start[:, 0]).exp().mean()))
    for number in range(ROUNDS + 1):
        expected = sum(math.exp(-z[0]) for z in chains.points[number].tolist()) / CHAINS
        assert info[f"round_{number}/oodness"] == pytest.approx(expected)
    assert f"round_{ROUNDS + 1}/oodness" not in info
    assert "round_0/acceptance" not in info


# HamOS's claim: chains leave the midpoints for points that are further from both classes.


def of_hmc(noise: Tensor, **rest: Any) -> Chains:
    return hmc.run_chains(momentum=noise, **rest)


def of_mala(noise: Tensor, **rest: Any) -> Chains:
    return hmc.run_chains(momentum=noise, leapfrog_steps=1, **rest)


def of_rmhmc(noise: Tensor, **rest: Any) -> Chains:
    history = normal(*noise.shape[:2], 3, seed=6) / noise.shape[2] ** 0.5
    return rmhmc.run_chains(momentum=noise, history=history, **rest)


def of_random_walk(noise: Tensor, **rest: Any) -> Chains:
    return random_walk.run_chains(steps=noise, **rest)


def oodness_of_rounds(sampler: Callable[..., Chains], seed: int, step_size: float = 0.1) -> Tensor:
    bank = clusters(6, 100, 32, spread=0.05, seed=seed)
    start, pairs = class_midpoints(bank, 4)
    noise = normal(5, len(start), 32, seed=seed + 10) / 32**0.5
    uniform = torch.rand(5, len(start), generator=draws(seed), dtype=torch.float64)
    chains = sampler(noise, start=start, bank=bank, pairs=pairs, uniform=uniform, step_size=step_size)
    return chains.oodness.mean(1)


@each("sampler", [of_hmc, of_mala, of_rmhmc, of_random_walk])
@each("seed", [0, 1, 2])
def test_points_are_further_out_from_round_to_round(sampler: Callable[..., Chains], seed: int) -> None:
    assert (oodness_of_rounds(sampler, seed).diff() > 0).all()


@each("seed", [0, 1, 2])
def test_hmc_gets_further_out_than_a_random_walk_of_equal_length(seed: int) -> None:
    hmc_gain = oodness_of_rounds(of_hmc, seed, 0.1)[[0, 5]].diff()  # of three leapfrog steps a round
    walk_gain = oodness_of_rounds(of_random_walk, seed, 0.3)[[0, 5]].diff()
    assert hmc_gain > 1.1 * walk_gain
