"""Spherical Hamiltonian Monte Carlo between ID classes (HamOS, section 3.2 and Algorithm 1).

Shape letters: B chains, C classes, N bank rows a class, D dimensions, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ood_lab.config.ranges import PositiveInt
from ood_lab.geometry.sphere import geodesic_step, project_to_tangent
from ood_lab.sampling.chain import Chains, Proposal, State, Target, run
from ood_lab.sampling.oodness import Density
from ood_lab.synthesizer.base import FromChains


def leapfrog(
    state: State,
    q_BD: Tensor,
    at: Callable[[Tensor], State],
    *,
    steps: int,
    step_size: float,
    force: Callable[[State], Tensor] | None = None,
) -> tuple[State, Tensor]:
    """`steps` spherical leapfrog steps (HamOS, Eq. 3): half a kick, a great circle, half a kick.

    Args:
        state: the start; the gradient at each step's end is used again at the next step's start.
        at: z -> the state there.
        force: what is taken from the velocity, times step_size / 2; the tangent part of the gradient by default.

    Returns:
        the state and the velocity at the end.
    """
    pull = _tangent_gradient if force is None else force
    for _ in range(steps):
        q_BD = q_BD - step_size / 2 * pull(state)
        z_BD, q_BD = geodesic_step(state.z, q_BD, step_size)
        state = at(z_BD)
        q_BD = q_BD - step_size / 2 * pull(state)
    return state, q_BD


def _tangent_gradient(state: State) -> Tensor:
    return project_to_tangent(state.z, state.gradient)


def run_chains(
    start: Tensor,
    bank: Tensor,
    pairs: Tensor,
    *,
    momentum: Tensor,
    uniform: Tensor,
    neighbor: int = 200,
    leapfrog_steps: int = 3,
    step_size: float = 0.1,
    kappa: float = 2.0,
    margin: float = 0.1,
    density: Density = "paper",
) -> Chains:
    """The whole HamOS chain (Algorithm 1, lines 4 to 21) with its random draws given; see `ood_lab.sampling.chain.run`.

    With leapfrog_steps=1 it is the Metropolis-adjusted Langevin algorithm (MALA).

    Args:
        start: [B, D] unit points.
        bank: [C, N, D] unit features.
        pairs: [B, 2] classes of each chain.
        momentum: [R, B, D]; projected to the tangent plane here.
        uniform: [R, B] in [0, 1).
        neighbor: k, clipped to N.
        kappa: concentration of the kernel density.
        margin: delta of Eq. 5.
    """
    target = Target(bank, pairs, neighbor=neighbor, kappa=kappa, density=density)

    def propose(number: int, here: State, _: object) -> Proposal:
        q = project_to_tangent(here.z, momentum[number])
        total = here.energy + q.square().sum(1) / 2
        there, q_end = leapfrog(here, q, target.state, steps=leapfrog_steps, step_size=step_size)
        return Proposal(there, there.energy + q_end.square().sum(1) / 2 - total)

    return run(target, propose, start, uniform, margin)


class HMC(FromChains):
    """Hamiltonian Monte Carlo from the midpoints of near classes.

    With step_size 0.1, 3 steps and D = 128 a round turns a chain by about 194 degrees: chains jump to the far side and
    back, and the gradient hardly bends them. `momentum="sphere"` scales the momentum by 1 / sqrt(D), which gives moves
    of about 17 degrees a round.

    Args:
        leapfrog_steps: L; 1 is MALA.
        chains: see `FromChains`.
    """

    def __init__(self, *, leapfrog_steps: PositiveInt, **chains: Any) -> None:
        super().__init__(**chains)
        self.options["leapfrog_steps"] = leapfrog_steps

    def chains(self, start: Tensor, bank: Tensor, pairs: Tensor, draws: Mapping[str, Tensor]) -> Chains:
        return run_chains(start, bank, pairs, momentum=draws["noise"], uniform=draws["uniform"], **self.options)
