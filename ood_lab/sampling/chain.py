"""Markov chains of outliers between ID classes (HamOS, Algorithm 1): what all samplers share.

Shape letters: B chains, C classes, N bank rows a class, D dimensions, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from ood_lab.sampling.oodness import Density, negative_log_id_probability, neighbour_search, potential_and_gradient


class Fate(IntEnum):
    """What became of the proposal of a point's round."""

    START = 0
    ACCEPTED = 1
    MARGIN = 2
    METROPOLIS = 3


class Chains(NamedTuple):
    """What a sampler gives: the start and R more points of each chain, and how the proposals fared."""

    points: Tensor  # [R + 1, B, D]
    accepted: Tensor  # bool [R, B]
    blocked: Tensor  # bool [R, B]: refused by the hard margin
    energy_error: Tensor  # [R, B]: H(proposal) - H(start of round)
    oodness: Tensor  # [R + 1, B]: mean distance to the k-th neighbour in the two classes


class State(NamedTuple):
    """Where the chains are, with potential U and its gradient; a proposal has the same."""

    z: Tensor  # [B, D]
    energy: Tensor  # [B]
    gradient: Tensor  # [B, D]


class Proposal(NamedTuple):
    """Where the chains would go, and what the Metropolis test asks: the energy H there less that at the start."""

    state: State
    energy_error: Tensor  # [B]


class Target:
    """The density that the chains of class pairs sample, and the ID probability of the margin.

    Args:
        bank: [C, N, D] unit features.
        pairs: [B, 2] classes of each chain.
        neighbor: k, clipped to N.
        kappa: concentration of the kernel density.
        density: see `negative_log_id_probability`.
    """

    def __init__(self, bank: Tensor, pairs: Tensor, *, neighbor: int, kappa: float, density: Density) -> None:
        self.bank, self.kappa, self.density = bank, kappa, density
        self.k = min(neighbor, bank.shape[1])
        self._search = neighbour_search(bank, pairs, self.k)

    def state(self, z_BD: Tensor) -> State:
        """Potential and gradient at z."""
        return State(z_BD, *potential_and_gradient(z_BD, self._search(z_BD)))

    def surprise(self, z_BD: Tensor) -> Tensor:
        """-log max_c P_c^ID(z) [B]."""
        return negative_log_id_probability(z_BD, self.bank, self.kappa, density=self.density, k=self.k)


# (round, where the chains are, their points so far) -> where they would go.
Kernel = Callable[[int, State, Sequence[Tensor]], Proposal]


@torch.no_grad()
def run(target: Target, kernel: Kernel, start: Tensor, uniform: Tensor, margin: float) -> Chains:
    """Rounds of proposals, each with its Metropolis test and the margin (HamOS, Algorithm 1, lines 4 to 21).

    A proposal is taken where u < exp(H - H') and -log max_c P_c(z') > -log max_c P_c(start) - margin; otherwise the
    chain stays, and its point is recorded again. A proposal that is not a number is refused.

    Args:
        start: [B, D] unit points.
        uniform: u, [R, B] in [0, 1).
        margin: delta of Eq. 5.
    """
    here, threshold = target.state(start), target.surprise(start) - margin
    points, energies = [here.z], [here.energy]
    accepted, blocked, errors = [], [], []
    for number, u in enumerate(uniform):
        there, error = kernel(number, here, points)
        surprise = target.surprise(there.z)
        take = (u < (-error).exp()) & (surprise > threshold)
        column = take[:, None]
        here = State(
            torch.where(column, there.z, here.z),
            torch.where(take, there.energy, here.energy),
            torch.where(column, there.gradient, here.gradient),
        )
        points.append(here.z)
        energies.append(here.energy)
        accepted.append(take)
        blocked.append(surprise <= threshold)
        errors.append(error)
    return Chains(
        torch.stack(points),
        torch.stack(accepted),
        torch.stack(blocked),
        torch.stack(errors),
        (-torch.stack(energies)).exp(),
    )
