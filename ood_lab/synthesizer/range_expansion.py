"""ARES: features of ID images mixed with one another, and of the mixtures the least likely ones (section 3.3).

Shape letters: N queue rows, M mixtures, K points, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.memory import FeatureQueue
from ood_lab.parts import Dimensions, Memories, Synthesizer
from ood_lab.random import beta
from ood_lab.synthesizer.gaussian_tail import tail_points, tied_gaussian
from ood_lab.types import Outliers


def mixtures(queue_ND: Tensor, *, first_M: Tensor, second_M: Tensor, share_M: Tensor) -> Tensor:
    """l f_i + (1 - l) f_j of the rows named by `first_M` and `second_M` [M, D] (ARES, Eq. 3)."""
    return torch.lerp(queue_ND[second_M], queue_ND[first_M], share_M[:, None])


def pairs(rows: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of different rows, each uniform among all such pairs."""
    draw = partial(torch.randint, size=(count,), generator=generator, device=generator.device)
    first = draw(rows)
    return first, (first + draw(low=1, high=max(rows, 2))) % rows


def least_likely(points_MD: Tensor, take: int, ridge: float) -> Tensor:
    """The `take` points of lowest density under one Gaussian fitted to all of them [K, D] (ARES, Eqs. 4 to 6).

    The threshold of Eq. 6 is the take-th lowest likelihood, so these are the points below it. Its constants cancel:
    what is compared is the Mahalanobis distance |L^-1 (x - mu)|, with L L' the covariance, + ridge I.
    """
    means, factor = tied_gaussian(points_MD[None], ridge)
    # One product with the inverse factor is several times faster than solving for every point.
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
    distances = ((points_MD - means) @ whitening.T).square_().sum(1)
    return points_MD[distances.topk(take).indices]


class RangeExpansion(Synthesizer):
    """Outliers among mixtures of penultimate features: Expansion and Estimation of ARES.

    The features are those of the latest training images, which `mixing=escape` moves away from the ID region first.
    The paper draws M from the mixtures of the whole set; a step has features of its batch alone, so that a queue keeps
    those of the steps before.

    Args:
        queue_size: rows kept, of all classes together.
        pool: M, mixtures.
        take: t, points that are taken; the paper's is the batch size.
        alpha: alpha_2 of the share l ~ Beta(alpha_2, alpha_2).
        shares: one l for each "pair", or one for the whole "step".
        expansion: whether rows are mixed; without, M are drawn from the queue (Table 2), where M exceeds its size some
            of them several times.
        estimation: "lowest" takes the least likely of the mixtures (every sentence of section 3.3.3 agrees with it);
            "gaussian" the least likely of M draws from the Gaussian that is fitted to them, as VOS does; "none" any
            (Table 2).
        ridge: added to the covariance's diagonal, as in VOS's code.
    """

    space: ClassVar[str] = "penultimate"
    at_most: ClassVar = (("take", "pool"),)

    def __init__(
        self,
        *,
        queue_size: PositiveInt,
        pool: PositiveInt,
        take: PositiveInt,
        alpha: PositiveFloat,
        shares: Literal["pair", "step"],
        expansion: bool,
        estimation: Literal["lowest", "gaussian", "none"],
        ridge: PositiveFloat,
    ) -> None:
        self.queue_size, self.pool, self.take, self.alpha, self.shares = queue_size, pool, take, alpha, shares
        self.expansion, self.estimation, self.ridge = expansion, estimation, ridge

    def keeps(self) -> Memories:
        return {"feature_queue": partial(FeatureQueue, size=self.queue_size)}

    @torch.no_grad()
    def sample(self, kept: Mapping[str, Tensor], dims: Dimensions, generator: torch.Generator) -> Outliers:
        points = self.estimated(self.expanded(kept["feature_queue"], generator), generator)
        nowhere = torch.full((len(points),), -1, device=points.device)
        return Outliers(points, nowhere, {})

    def expanded(self, queue_ND: Tensor, generator: torch.Generator) -> Tensor:
        """M mixtures [M, D]; without expansion M rows, each at most once as far as they go."""
        rows, device = len(queue_ND), generator.device
        if not self.expansion:
            rounds = [torch.randperm(rows, generator=generator, device=device) for _ in range(-(-self.pool // rows))]
            return queue_ND[torch.cat(rounds)[: self.pool]]
        first, second = pairs(rows, self.pool, generator)
        share = beta(self.alpha, self.alpha, (self.pool if self.shares == "pair" else 1,), generator).to(queue_ND)
        return mixtures(queue_ND, first_M=first, second_M=second, share_M=share.expand(self.pool))

    def estimated(self, points_MD: Tensor, generator: torch.Generator) -> Tensor:
        """K of the mixtures, or of draws from their Gaussian [K, D]."""
        device = generator.device
        if self.estimation == "lowest":
            return least_likely(points_MD, self.take, self.ridge)
        if self.estimation == "none":
            return points_MD[torch.randperm(len(points_MD), generator=generator, device=device)[: self.take]]
        directions = torch.randn(1, self.take, points_MD.shape[1], generator=generator, device=device)
        uniform = torch.rand(1, self.take, generator=generator, device=device, dtype=torch.float64)
        drawn = tail_points(
            points_MD[None],
            directions_CKD=directions.to(points_MD),
            uniform_CK=1 - uniform,
            draws=self.pool,
            ridge=self.ridge,
        )
        return drawn[0]
