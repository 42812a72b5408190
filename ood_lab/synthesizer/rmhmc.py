"""Simplified Riemann manifold HMC: velocities with the covariance of the chain's last states (HamOS, Eq. 13).

Shape letters: B chains, C classes, N bank rows a class, D dimensions, R rounds, M = J + 1 states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveFraction, PositiveInt
from ood_lab.geometry.sphere import project_to_tangent
from ood_lab.sampling.chain import Chains, Proposal, State, Target, run
from ood_lab.sampling.oodness import Density
from ood_lab.synthesizer.base import FromChains
from ood_lab.synthesizer.hmc import leapfrog


class Metric(NamedTuple):
    """A = s I + G G' of each chain, with which velocities are drawn in the tangent plane: v ~ N(0, P A P)."""

    shrinkage: Tensor  # s, [B]
    factor: Tensor  # G, [B, M, D]

    @classmethod
    def of_states(cls, states: Sequence[Tensor], shrinkage: float) -> Metric:
        """Of M states [B, D]: A = s I + (1 - s) D S / tr S, S their covariance about their mean.

        A has the trace of I, so that velocities are as long as those of HMC. Where the states are all the same, A = I.
        """
        z = torch.stack(tuple(states), dim=1)
        away = z - z.mean(1, keepdim=True)
        trace = away.square().sum((1, 2)) / z.shape[1]  # of S
        spread = trace > 1e-12
        scale = torch.where(spread, (1 - shrinkage) * z.shape[2] / (trace * z.shape[1]).clamp(min=1e-12), 0.0)
        shared = torch.full_like(trace, shrinkage).masked_fill(~spread, 1.0)
        return cls(shared, scale.sqrt()[:, None, None] * away)

    def tangent(self, z_BD: Tensor) -> Tensor:
        """P G at z [B, M, D]."""
        return project_to_tangent(z_BD[:, None], self.factor)

    def velocity(self, z_BD: Tensor, noise_BD: Tensor, history_BM: Tensor) -> Tensor:
        """A draw of N(0, P A P) from standard normal numbers."""
        drawn = self.shrinkage.sqrt()[:, None] * noise_BD + (history_BM[:, :, None] * self.factor).sum(1)
        return project_to_tangent(z_BD, drawn)

    def times_gradient(self, state: State) -> Tensor:
        """P A P grad U."""
        factor, gradient = self.tangent(state.z), project_to_tangent(state.z, state.gradient)
        within = (factor * gradient[:, None]).sum(2)
        return self.shrinkage[:, None] * gradient + (within[:, :, None] * factor).sum(1)

    def kinetic(self, z_BD: Tensor, v_BD: Tensor) -> Tensor:
        """-log N(v; 0, P A P) on the tangent plane, up to a constant of the metric [B].

        By the identities of Woodbury and Sylvester from M x M matrices: v' (P A P)^+ v = (|v|^2 - b' K^-1 b) / s with
        b = G' P v and K = s I + G' P G, and log det = log det K + a constant.
        """
        factor = self.tangent(z_BD)
        within = (factor * v_BD[:, None]).sum(2)
        inner = factor @ factor.mT + torch.diag_embed(self.shrinkage[:, None].expand_as(within))
        root = torch.linalg.cholesky_ex(inner).L
        solved = torch.linalg.solve_triangular(root, within[:, :, None], upper=False).squeeze(2)
        quadratic = (v_BD.square().sum(1) - solved.square().sum(1)) / self.shrinkage
        return quadratic / 2 + root.diagonal(dim1=1, dim2=2).log().sum(1)


def run_chains(
    start: Tensor,
    bank: Tensor,
    pairs: Tensor,
    *,
    momentum: Tensor,
    history: Tensor,
    uniform: Tensor,
    neighbor: int = 200,
    leapfrog_steps: int = 3,
    step_size: float = 0.1,
    shrinkage: float = 0.5,
    kappa: float = 2.0,
    margin: float = 0.1,
    density: Density = "paper",
) -> Chains:
    """HMC in which a round's velocities have the covariance A of the chain's last M states (fewer at its beginning).

    v ~ N(0, P A P) on the tangent plane, H = U + v' (P A P)^+ v / 2 + log det(P A P) / 2, and half kicks of
    P A P grad U between great circles: reversible and volume-preserving, so that the Metropolis test is exact for a
    fixed A. A comes from the chain's own past, and changes from round to round: as a whole the chain is adaptive. With
    leapfrog_steps=1 it is mMALA. Arguments as in `ood_lab.synthesizer.hmc.run_chains`.

    Args:
        momentum: [R, B, D] standard normal numbers.
        history: [R, B, M] standard normal numbers, of the directions between the last states.
        shrinkage: s in (0, 1] of A = s I + (1 - s) D S / tr S. The paper's covariance of J + 1 = 3 states has rank 2
            and no inverse; 1 is HMC.
    """
    target = Target(bank, pairs, neighbor=neighbor, kappa=kappa, density=density)

    def propose(number: int, here: State, points: Sequence[Tensor]) -> Proposal:
        last = points[-history.shape[2] :]
        metric = Metric.of_states(last, shrinkage)
        v = metric.velocity(here.z, momentum[number], history[number, :, : len(last)])
        there, v_end = leapfrog(
            here, v, target.state, steps=leapfrog_steps, step_size=step_size, force=metric.times_gradient
        )
        before = here.energy + metric.kinetic(here.z, v)
        return Proposal(there, there.energy + metric.kinetic(there.z, v_end) - before)

    return run(target, propose, start, uniform, margin)


class RMHMC(FromChains):
    """HMC with the covariance of the last states, from the midpoints of near classes.

    Args:
        leapfrog_steps: L; 1 is mMALA.
        states: J + 1, states of the chain whose covariance counts.
        shrinkage: see `run_chains`.
        chains: see `FromChains`.
    """

    def __init__(
        self, *, leapfrog_steps: PositiveInt, states: PositiveInt, shrinkage: PositiveFraction, **chains: Any
    ) -> None:
        super().__init__(**chains)
        self.states = states
        self.options |= {"leapfrog_steps": leapfrog_steps, "shrinkage": shrinkage}

    def draws(self, generator: torch.Generator, start: Tensor) -> dict[str, Tensor]:
        shape = (self.rounds, len(start), self.states)
        history = torch.randn(shape, generator=generator, device=generator.device).to(start)
        return {"history": history * self.scale(start)}

    def chains(self, start: Tensor, bank: Tensor, pairs: Tensor, draws: Mapping[str, Tensor]) -> Chains:
        momentum, history, uniform = draws["noise"], draws["history"], draws["uniform"]
        return run_chains(start, bank, pairs, momentum=momentum, history=history, uniform=uniform, **self.options)
