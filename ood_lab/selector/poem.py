"""POEM's choice: outliers near a boundary drawn from its posterior (Ming et al. 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ood_lab.config.ranges import PositiveFloat, PositiveInt
from ood_lab.errors import RunError
from ood_lab.geometry.posterior import posterior
from ood_lab.random import generator
from ood_lab.selector.base import EpochSelector, Passes, lowest


class POEM(EpochSelector):
    """Thompson sampling: before each epoch the weights w of a linear regression that tells ID images (-target) from the
    outliers chosen before (+target) are drawn from their posterior; the smallest |w z| of the pool are taken.

    z are penultimate features of images without augmentation, all by the network as it is (POEM's code keeps the
    augmented images of the epochs). ID images weigh as often as there are remembered epochs, as in the code. In the
    first epoch w is drawn from the prior.

    Args:
        pool, take: see `EpochSelector`; 400,000 candidates in POEM's code, as many taken as there are ID images.
        queue: epochs whose outliers the regression is fitted to.
        prior, noise: variances of the weights and of the regression's noise.
        target: level of the two sides.
        reading: "exact" draws from the posterior; "released" widens its covariance by the factor `prior` and moves both
            targets by one draw of the noise, as the released code does.
    """

    def __init__(
        self,
        *,
        pool: PositiveInt,
        take: PositiveInt | None = None,
        queue: PositiveInt = 4,
        prior: PositiveFloat = 20.0,
        noise: PositiveFloat = 0.5,
        target: PositiveFloat = 3.0,
        reading: Literal["exact", "released"] = "exact",
    ) -> None:
        super().__init__(pool=pool, take=take, queue=queue)
        self.prior, self.noise, self.target, self.reading = prior, noise, target, reading

    def choose(self, passes: Passes, pool: Tensor, take: int, epoch: int) -> Tensor:
        weights_D = self._weights(passes, epoch)
        distances = torch.zeros(len(pool), dtype=torch.float64, device=passes.device)
        for places, features in passes.of_auxiliary(pool, "features of the candidates"):
            distances[places.to(passes.device)] = (features.double() @ weights_D).abs()
        distances = _finite(passes.total(distances), "candidates")
        return pool[lowest(distances, take).cpu()].to(self.chosen.device)

    def _weights(self, passes: Passes, epoch: int) -> Tensor:
        """A draw of the regression's weights [D], the same on all devices."""
        draw = generator(passes.seed, "weights")
        normal_D = torch.randn(passes.features, generator=draw, dtype=torch.float64).to(passes.device)
        remembered = self.remembered()
        if not len(remembered):
            return self.prior**0.5 * normal_D
        shape = (passes.features, passes.features)
        gram_DD = torch.zeros(shape, dtype=torch.float64, device=passes.device)
        moment_D = gram_DD.new_zeros(passes.features)
        shift = 0.0
        if self.reading == "released":
            shift = float(torch.randn((), generator=generator(passes.run_seed, "target"))) * self.noise**0.5
        epochs = len(remembered) // self.chosen.shape[1]
        for features in passes.of_id():
            z_ND = features.double()
            gram_DD += epochs * (z_ND.T @ z_ND)
            moment_D += epochs * (shift - self.target) * z_ND.sum(0)
        for _, features in passes.of_auxiliary(remembered, "features of outliers chosen before"):
            z_ND = features.double()
            gram_DD += z_ND.T @ z_ND
            moment_D += (shift + self.target) * z_ND.sum(0)
        gram_DD = _finite(passes.total(gram_DD), "training images")
        found = posterior(gram_DD, passes.total(moment_D), self.prior, self.noise)
        return found.draw(normal_D, self.prior if self.reading == "released" else 1.0)


def _finite(values: Tensor, what: str) -> Tensor:
    if not values.isfinite().all():
        raise RunError(f"the features of the {what} are not finite: the network has diverged; lower the learning rate")
    return values
