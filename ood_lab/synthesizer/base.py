"""What sources of outliers that draw from a bank share: the bank, midpoints of near classes, chains from these."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from ood_lab.errors import NotDefinedError, RunError
from ood_lab.memory import Bank, FeatureBank
from ood_lab.parts import Dimensions, Memories, Synthesizer
from ood_lab.sampling.chain import Chains, Fate
from ood_lab.sampling.oodness import Density
from ood_lab.types import Outliers

Centroids = Literal["unit", "raw"]


class FromBank(Synthesizer):
    """Draws outliers from a bank of recent rows of each class, once every class is full.

    The bank holds rows of the space in which the points lie: projections, or penultimate features.

    Args:
        bank_size: rows kept for each class.
    """

    def __init__(self, *, bank_size: PositiveInt = 1000) -> None:
        self.bank_size = bank_size

    def keeps(self) -> Memories:
        if self.space == "projection":
            return {"bank": partial(Bank, size=self.bank_size)}
        return {"feature_bank": partial(FeatureBank, size=self.bank_size)}

    @torch.no_grad()
    def sample(self, kept: Mapping[str, Tensor], dims: Dimensions, generator: torch.Generator) -> Outliers:
        (name,) = self.keeps()
        return self.draw(kept[name], generator)

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        """Outliers [K, D] and the class each came from; `info` is logged."""
        raise NotDefinedError(self, "draw")


def near_pairs(means_CD: Tensor, adjacent: int) -> Tensor:
    """For each class its `adjacent` most similar others: pairs [C * adjacent, 2], class-major (HamOS, Algorithm 1).

    Similarity is the dot product of what is given: pass unit vectors for the cosine. Pairs are directed: (u, v) and
    (v, u) both occur when each is near the other. `adjacent` is clipped to C - 1.
    """
    classes = len(means_CD)
    similarity = means_CD @ means_CD.T
    similarity.fill_diagonal_(-torch.inf)
    near = similarity.topk(min(adjacent, classes - 1), dim=1).indices
    own = torch.arange(classes, device=near.device).unsqueeze(1).expand_as(near)
    return torch.stack((own, near), dim=2).reshape(-1, 2)


def by_class(points_CKD: Tensor) -> Outliers:
    """As many points of each class, one after the other."""
    classes, count = points_CKD.shape[:2]
    source = torch.arange(classes, device=points_CKD.device).repeat_interleave(count)
    return Outliers(points_CKD.flatten(0, 1), source, {})


@torch.no_grad()
def class_midpoints(bank_CND: Tensor, adjacent: int, centroids: Centroids = "unit") -> tuple[Tensor, Tensor]:
    """Midpoints b = (mu_u + mu_v) / |mu_u + mu_v| of near class pairs [P, D] (HamOS, section 3.2), and pairs [P, 2].

    The centroids are the bank's class means: scaled to unit length (the paper's prototypes lie on the sphere), or raw,
    as the HamOS release uses them for both the similarity and the midpoint.

    Raises:
        RunError: there is one class alone.
    """
    if len(bank_CND) < 2:
        raise RunError("midpoints lie between two classes, and the ID set has one; use another synthesizer")
    means = bank_CND.mean(1)
    if centroids == "unit":
        means = F.normalize(means, dim=1)
    pairs = near_pairs(means, adjacent)
    return F.normalize(means[pairs].sum(1), dim=1), pairs


class FromChains(FromBank):
    """Markov chains from the midpoints of near classes; the outliers are the midpoints and every round's points.

    Args:
        neighbor: k of the k-nearest-neighbour OOD-ness; clipped to the bank's rows a class.
        adjacent: N_adj, near classes paired with each class; clipped to C - 1.
        rounds: R.
        step_size: epsilon.
        momentum: normal numbers of deviation 1 ("standard") or D^-1/2 ("sphere") move the chains.
        centroids: "unit" class means, or "raw" ones as in the release.
        kappa: concentration of the vMF kernel.
        margin: delta of the hard margin.
        density: "paper" (Eqs. 11 and 12) or "released".
        midpoint_noise: deviation of Gaussian noise on the midpoints, which are then unit vectors again (Table 16).
        bank: see `FromBank`.
    """

    least_classes: ClassVar = 2

    def __init__(
        self,
        *,
        neighbor: PositiveInt,
        adjacent: PositiveInt,
        rounds: PositiveInt,
        step_size: PositiveFloat,
        momentum: Literal["standard", "sphere"],
        centroids: Centroids,
        kappa: PositiveFloat,
        margin: NonNegativeFloat,
        density: Density,
        midpoint_noise: NonNegativeFloat,
        **bank: Any,
    ) -> None:
        super().__init__(**bank)
        self.adjacent, self.rounds, self.momentum, self.centroids = adjacent, rounds, momentum, centroids
        self.midpoint_noise = midpoint_noise
        self.options: dict[str, Any] = {
            "neighbor": neighbor,
            "step_size": step_size,
            "kappa": kappa,
            "margin": margin,
            "density": density,
        }

    def scale(self, start: Tensor) -> float:
        """The deviation of what moves the chains."""
        return 1.0 if self.momentum == "standard" else float(start.shape[1] ** -0.5)

    def draws(self, generator: torch.Generator, start: Tensor) -> dict[str, Tensor]:
        """Further random numbers that the sampler needs."""
        return {}

    def chains(self, start: Tensor, bank: Tensor, pairs: Tensor, draws: Mapping[str, Tensor]) -> Chains:
        """The chains of class pairs [B, 2] from `start` [B, D].

        Args:
            draws: "noise" [R, B, D], normal, moves; "uniform" [R, B] tests; and what `draws()` gives.
        """
        raise NotDefinedError(self, "chains")

    def draw(self, bank_CND: Tensor, generator: torch.Generator) -> Outliers:
        start, pairs = class_midpoints(bank_CND, self.adjacent, self.centroids)
        shape = (self.rounds, *start.shape)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(start)
        if self.momentum == "sphere":
            noise *= self.scale(start)
        uniform = torch.rand(shape[:2], generator=generator, device=generator.device).to(start)
        if self.midpoint_noise:
            moved = torch.randn(start.shape, generator=generator, device=generator.device).to(start)
            start = F.normalize(start + self.midpoint_noise * moved, dim=1)
        draws = {"noise": noise, "uniform": uniform, **self.draws(generator, start)}
        chains = self.chains(start, bank_CND, pairs, draws)
        source = pairs[:, 0].repeat(self.rounds + 1)
        return Outliers(chains.points.flatten(0, 1), source, reports(chains), columns_of(chains))


def columns_of(chains: Chains) -> dict[str, Tensor]:
    """Of each point its round, its OOD-ness, and what became of its round's proposal, a `Fate`."""
    rounds, count = chains.oodness.shape
    numbers = torch.arange(rounds, device=chains.oodness.device)[:, None].expand(rounds, count)
    fate = torch.where(chains.accepted, Fate.ACCEPTED, torch.where(chains.blocked, Fate.MARGIN, Fate.METROPOLIS))
    fate = torch.cat([torch.zeros_like(fate[:1]), fate])
    named = {"round": numbers, "oodness": chains.oodness, "fate": fate}
    return {name: values.flatten() for name, values in named.items()}


def reports(chains: Chains) -> dict[str, Tensor]:
    """What is logged of chains: means over all rounds, and of each round.

    A proposal is refused by the margin, or else by the Metropolis test. OOD-ness is that of the points recorded.
    """
    accepted, blocked = chains.accepted.float(), chains.blocked.float()
    refused = (~chains.accepted & ~chains.blocked).float()
    info = {"acceptance": accepted.mean(), "blocked": blocked.mean(), "oodness": chains.oodness.mean()}
    by_round = {"acceptance": accepted.mean(1), "margin": blocked.mean(1), "metropolis": refused.mean(1)}
    for name, values in by_round.items():
        info |= {f"round_{number}/{name}": value for number, value in enumerate(values, 1)}
    oodness = chains.oodness.mean(1)
    return info | {f"round_{number}/oodness": value for number, value in enumerate(oodness)}
