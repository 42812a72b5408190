"""Spherical Hamiltonian Monte Carlo between ID classes (HamOS, section 3.2 and Algorithm 1).

Shape letters: B chains, C classes, N bank rows a class, D dimensions, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from ood_lab.sphere import geodesic_step, project_to_tangent, vmf_kernel_log_density
from ood_lab.synthesizer.base import FromBank, class_midpoints
from ood_lab.types import Outliers

Density = Literal["paper", "released"]
ROWS = 128  # queries a block in the kernel density: 128 x 1000 similarities stay in a core's cache


class Chains(NamedTuple):
    """What `run_chains` gives: the start and R more points of each chain, and how the proposals fared."""

    points: Tensor  # [R + 1, B, D]
    accepted: Tensor  # bool [R, B]
    blocked: Tensor  # bool [R, B]: refused by the hard margin
    energy_error: Tensor  # [R, B]: H(proposal) - H(start of round)
    oodness: Tensor  # [R + 1, B]: mean distance to the k-th neighbour in the two classes


def oodness(z_BD: Tensor, neighbours_B2D: Tensor) -> Tensor:
    """P^OOD(z; u, v) = (|z - z_u(k)| + |z - z_v(k)|) / 2 [B] (HamOS, Eq. 1)."""
    return (z_BD[:, None] - neighbours_B2D).norm(dim=-1).mean(1)


def potential_and_gradient(z_BD: Tensor, neighbours_B2D: Tensor) -> tuple[Tensor, Tensor]:
    """U = -log P^OOD [B] (HamOS, Eq. 2) and its gradient [B, D] with the neighbours held fixed.

    grad U = -(n_u + n_v) / (d_u + d_v), n_i the unit vector from the neighbour to z and d_i its length. The paper's
    Eq. 4 has exp(-U) where the derivative of Eq. 2 has exp(U) / 2; the release differentiates Eq. 2, as here.
    """
    away_B2D = z_BD[:, None] - neighbours_B2D
    distance_B2 = away_B2D.norm(dim=-1)
    total = distance_B2.sum(1)
    unit = away_B2D / distance_B2.clamp(min=1e-12).unsqueeze(-1)
    return -(total / 2).log(), -unit.sum(1) / total.unsqueeze(1)


def kth_largest_column(rows_MN: Tensor, k: int) -> Tensor:
    """Column of the k-th largest entry of each row [M].

    On the CPU numpy's vectorised partition finds the value and an equality search its place, several times faster
    than a partial sort with indices.
    """
    if rows_MN.device.type != "cpu":
        return rows_MN.topk(k, dim=1).indices[:, -1]
    array = rows_MN.numpy()
    value = np.partition(array, array.shape[1] - k, axis=1)[:, -k, None]
    return torch.from_numpy((array == value).argmax(1))


def neighbour_search(bank_CND: Tensor, pairs_B2: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """A function from points [B, D] to their k-th nearest rows [B, 2, D] in each chain's two classes.

    Both members of a pair and all chains that ask one class share one matrix product.
    """
    wanted = pairs_B2.flatten()
    order = wanted.argsort(stable=True)
    classes, counts = wanted[order].unique_consecutive(return_counts=True)
    dims, chains, flat_classes = counts.tolist(), order // 2, wanted[order]
    banks = [bank_CND[label].T for label in classes.tolist()]
    similarity = bank_CND.new_empty(len(wanted), bank_CND.shape[1])

    def search(z_BD: Tensor) -> Tensor:
        for queries, rows, out in zip(z_BD[chains].split(dims), banks, similarity.split(dims), strict=True):
            torch.mm(queries, rows, out=out)
        found = bank_CND[flat_classes, kth_largest_column(similarity, k)]
        neighbours = torch.empty_like(found)
        neighbours[order] = found
        return neighbours.view(len(z_BD), 2, -1)

    return search


def negative_log_id_probability(
    z_BD: Tensor, bank_CND: Tensor, kappa: float, *, density: Density = "paper", k: int = 200
) -> Tensor:
    """-log max_c P_c^ID(z) [B], the ID probability of the margin (HamOS, Eqs. 11, 12 and 5).

    "paper": kernel means over all rows of each class, P_c their share. "released": kernel mean over the k nearest
    rows of each class, divided by the class's largest kernel value, then a softmax over classes (almost flat).
    """
    parts = []
    for block in z_BD.split(ROWS):
        if density == "paper":
            log_p = torch.stack([vmf_kernel_log_density(block, rows, kappa) for rows in bank_CND], dim=1)
        else:
            log_p = torch.stack([_relative_kernel_mean(block @ rows.T, kappa, k) for rows in bank_CND], dim=1)
        parts.append(log_p.logsumexp(1) - log_p.amax(1))
    return torch.cat(parts)


def _relative_kernel_mean(similarity_BN: Tensor, kappa: float, k: int) -> Tensor:
    """mean over the k largest of exp(kappa s) / max exp(kappa s)  [B]."""
    k = min(k, similarity_BN.shape[1])
    if similarity_BN.device.type == "cpu":
        similarity_BN.numpy().partition(similarity_BN.shape[1] - k, axis=1)  # in place: the block is ours
        largest = similarity_BN[:, -k:]
    else:
        largest = similarity_BN.topk(k, dim=1, sorted=False).values
    return (kappa * (largest - largest.amax(1, keepdim=True))).exp_().mean(1)


def leapfrog(
    z_BD: Tensor,
    q_BD: Tensor,
    gradient_BD: Tensor,
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    steps: int,
    step_size: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`steps` spherical leapfrog steps (HamOS, Eq. 3): half a kick, a great circle, half a kick.

    Args:
        gradient_BD: gradient at z; the one at each step's end is used again at the next step's start.
        potential: z -> (U [B], gradient [B, D]).

    Returns:
        z, q, U(z) and gradient at the end.
    """
    energy = z_BD.new_zeros(len(z_BD))
    for _ in range(steps):
        q_BD = q_BD - step_size / 2 * project_to_tangent(z_BD, gradient_BD)
        z_BD, q_BD = geodesic_step(z_BD, q_BD, step_size)
        energy, gradient_BD = potential(z_BD)
        q_BD = q_BD - step_size / 2 * project_to_tangent(z_BD, gradient_BD)
    return z_BD, q_BD, energy, gradient_BD


@torch.no_grad()
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
    """The whole HamOS chain (Algorithm 1, lines 4 to 21) with its random draws given.

    A proposal is taken where u < exp(H - H') and -log max_c P_c(z') > -log max_c P_c(start) - margin; otherwise the
    chain stays, and its point is recorded again. A proposal that is not a number is refused.

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
    k = min(neighbor, bank.shape[1])
    search = neighbour_search(bank, pairs, k)

    def potential(z: Tensor) -> tuple[Tensor, Tensor]:
        return potential_and_gradient(z, search(z))

    def surprise(z: Tensor) -> Tensor:
        return negative_log_id_probability(z, bank, kappa, density=density, k=k)

    z, threshold = start, surprise(start) - margin
    energy, gradient = potential(z)
    points, energies = [z], [energy]
    accepted, blocked, errors = [], [], []
    for q, u in zip(momentum, uniform, strict=True):
        q = project_to_tangent(z, q)
        total = energy + q.square().sum(1) / 2
        z_new, q_new, energy_new, gradient_new = leapfrog(
            z, q, gradient, potential, steps=leapfrog_steps, step_size=step_size
        )
        error = energy_new + q_new.square().sum(1) / 2 - total
        surprise_new = surprise(z_new)
        take = (u < (-error).exp()) & (surprise_new > threshold)
        z = torch.where(take[:, None], z_new, z)
        energy = torch.where(take, energy_new, energy)
        gradient = torch.where(take[:, None], gradient_new, gradient)
        points.append(z)
        energies.append(energy)
        accepted.append(take)
        blocked.append(surprise_new <= threshold)
        errors.append(error)
    return Chains(
        torch.stack(points),
        torch.stack(accepted),
        torch.stack(blocked),
        torch.stack(errors),
        (-torch.stack(energies)).exp(),
    )


class HMC(FromBank):
    """Chains from the midpoints of near classes; the outliers are the midpoints and every round's points.

    With step_size 0.1, 3 steps and D = 128 a round turns a chain by about 194 degrees: chains jump to the far side and
    back, and the gradient hardly bends them. `momentum="sphere"` scales the momentum by 1 / sqrt(D), which gives moves
    of about 17 degrees a round.

    Args:
        neighbor: k of the k-nearest-neighbour OOD-ness; clipped to the bank's rows a class.
        adjacent: N_adj, near classes paired with each class; clipped to C - 1.
        rounds: R.
        leapfrog_steps: L.
        step_size: epsilon.
        momentum: "standard" draws N(0, I), "sphere" N(0, I / D).
        centroids: "unit" class means, or "raw" ones as in the release.
        kappa: concentration of the vMF kernel.
        margin: delta of the hard margin.
        density: "paper" (Eqs. 11 and 12) or "released".
        midpoint_noise: deviation of Gaussian noise on the midpoints, which are then unit vectors again (Table 16).
        bank: see `FromBank`.
    """

    def __init__(
        self,
        *,
        neighbor: PositiveInt,
        adjacent: PositiveInt,
        rounds: PositiveInt,
        leapfrog_steps: PositiveInt,
        step_size: PositiveFloat,
        momentum: Literal["standard", "sphere"],
        centroids: Literal["unit", "raw"],
        kappa: PositiveFloat,
        margin: NonNegativeFloat,
        density: Literal["paper", "released"],
        midpoint_noise: NonNegativeFloat,
        **bank: Any,
    ) -> None:
        super().__init__(**bank)
        self.adjacent, self.rounds, self.momentum, self.centroids = adjacent, rounds, momentum, centroids
        self.midpoint_noise = midpoint_noise
        self.options: dict[str, Any] = {
            "neighbor": neighbor,
            "leapfrog_steps": leapfrog_steps,
            "step_size": step_size,
            "kappa": kappa,
            "margin": margin,
            "density": density,
        }

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        start, pairs = class_midpoints(bank_CND, self.adjacent, self.centroids)
        shape = (self.rounds, *start.shape)
        momentum = torch.randn(shape, generator=generator, device=generator.device).to(start)
        if self.momentum == "sphere":
            momentum /= start.shape[1] ** 0.5
        uniform = torch.rand(shape[:2], generator=generator, device=generator.device).to(start)
        if self.midpoint_noise:
            noise = torch.randn(start.shape, generator=generator, device=generator.device).to(start)
            start = F.normalize(start + self.midpoint_noise * noise, dim=1)
        chains = run_chains(start, bank_CND, pairs, momentum=momentum, uniform=uniform, **self.options)
        info = {
            "acceptance": chains.accepted.float().mean(),
            "blocked": chains.blocked.float().mean(),
            "oodness": chains.oodness.mean(),
        }
        return Outliers(chains.points.flatten(0, 1), pairs[:, 0].repeat(self.rounds + 1), info)
