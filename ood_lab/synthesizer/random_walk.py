"""Random walk on the sphere with a Metropolis test: HamOS's baseline sampler (HamOS, App. C.3 and Table 9).

Shape letters: B chains, C classes, N bank rows a class, D dimensions, R rounds.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ood_lab.geometry.sphere import geodesic_step, project_to_tangent
from ood_lab.sampling.chain import Chains, Proposal, State, Target, run
from ood_lab.sampling.oodness import Density
from ood_lab.synthesizer.base import FromChains


def run_chains(
    start: Tensor,
    bank: Tensor,
    pairs: Tensor,
    *,
    steps: Tensor,
    uniform: Tensor,
    neighbor: int = 200,
    step_size: float = 0.1,
    kappa: float = 2.0,
    margin: float = 0.1,
    density: Density = "paper",
) -> Chains:
    """Chains whose proposals follow a great circle in a random direction, as far as step_size times a normal vector.

    The proposal is symmetric, so that the test asks for the potential alone. Arguments as in
    `ood_lab.synthesizer.hmc.run_chains`.

    Args:
        steps: [R, B, D] standard normal numbers; projected to the tangent plane here.
    """
    target = Target(bank, pairs, neighbor=neighbor, kappa=kappa, density=density)

    def propose(number: int, here: State, _: object) -> Proposal:
        z, _velocity = geodesic_step(here.z, project_to_tangent(here.z, steps[number]), step_size)
        there = target.state(z)
        return Proposal(there, there.energy - here.energy)

    return run(target, propose, start, uniform, margin)


class RandomWalk(FromChains):
    """Random-walk Metropolis from the midpoints of near classes; options as in `FromChains`."""

    def chains(self, start: Tensor, bank: Tensor, pairs: Tensor, draws: Mapping[str, Tensor]) -> Chains:
        return run_chains(start, bank, pairs, steps=draws["noise"], uniform=draws["uniform"], **self.options)
