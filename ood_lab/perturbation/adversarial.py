"""Outlier images moved against their outlier score (AOE, Eq. 7), in one step or in several.

Shape letters: B images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from ood_lab.loss.energy import energy
from ood_lab.network import Network
from ood_lab.perturbation.base import Beside, OutlierImages, Perturbation

Objective = Literal["energy", "softmax", "outlier_exposure"]
Gradient = Callable[[Tensor], Tensor]  # of images, with respect to them


def outlier_score(logits_BC: Tensor, objective: Objective) -> Tensor:
    """What an attack lowers to make images look like ID [B].

    "energy" is -log sum_c exp f_c; "softmax" the negative logarithm of the largest probability (the order of MSP,
    without its vanishing gradient); "outlier_exposure" -(log sum_c exp f_c - mean_c f_c): lowering it raises the loss
    of Outlier Exposure (AOE, section 5.5).
    """
    if objective == "energy":
        return energy(logits_BC)
    if objective == "softmax":
        return -logits_BC.log_softmax(1).amax(1)
    return logits_BC.mean(1) - logits_BC.logsumexp(1)


def score_gradient(network: Network, classes: int, objective: Objective, mode: Literal["train", "eval"]) -> Gradient:
    """The gradient of `outlier_score` with respect to images; the network keeps its statistics, mode and random stream.

    Args:
        classes: outputs of the network that are ID classes.
        mode: see `Network`; with "train" the images' own batch statistics, in which each depends on the others, too.
    """

    def gradient(images: Tensor) -> Tensor:
        x = images.detach().requires_grad_()
        logits = network(x, mode, grad=True).logits[:, :classes]
        (found,) = torch.autograd.grad(outlier_score(logits, objective).sum(), x)
        return found

    return gradient


def sign_steps(
    images: Tensor,
    gradient: Gradient,
    *,
    epsilon: float,
    steps: int = 1,
    step: float = 1.0,
    decay: float = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """x - a sign(grad), `steps` times, within `epsilon` of the images in every value. Values are not clipped to [0, 1].

    One step of length epsilon is FGSM (AOE, Eq. 7); several are PGD (Madry et al. 2018); with `decay` MI-FGSM (Dong et
    al. 2018), which follows g <- decay g + grad / |grad|_1.

    Args:
        gradient: of what is lowered, at some images.
        step: a, as a share of epsilon; negative raises instead of lowering.
        start: what is added before the first step.
    """
    moved = images if start is None else images + start
    followed = torch.zeros_like(images)
    for _ in range(steps):
        found = gradient(moved)
        if decay:
            followed = found = decay * followed + found / _norm1(found)
        moved = moved - step * epsilon * found.sign()
        if steps > 1 or start is not None or abs(step) > 1:
            moved = images + (moved - images).clamp(-epsilon, epsilon)
    return moved


def _norm1(gradients: Tensor) -> Tensor:
    """The L1 norm of each image's gradient, above zero."""
    return gradients.abs().sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(gradients.dtype).tiny)


class Adversarial(Perturbation):
    """x - epsilon sign(dS/dx): outliers of a lower outlier score S (AOE, Eq. 7).

    ID images get a higher one (section 3 of the paper tries it). The released code copies the network for it; here a
    further pass leaves statistics, dropout and random stream as they were. The gradient is that of the outlier images
    in every attack (the release's PGD and MI-FGSM differentiate with respect to the ID images).

    Args:
        objective: see `outlier_score`.
        epsilon: the largest change of a value, in units of the images as they are trained on: normalised ones, or those
            of [0, 1] with method.outlier_space=raw01. 0 changes nothing.
        steps: of the gradient.
        step: the length of each, as a share of epsilon.
        decay: of the accumulated gradient; 0 follows the last one.
        random_start: whether the first step begins at a random point within epsilon.
        statistics: batch normalisation by the changed images ("batch", with dropout, as in the release), or by the
            running statistics ("running", without).
        of: which images are changed; of two views of ID images the first.
    """

    strength = "epsilon"

    def __init__(
        self,
        *,
        objective: Objective,
        epsilon: NonNegativeFloat,
        steps: PositiveInt,
        step: PositiveFloat,
        decay: NonNegativeFloat,
        random_start: bool,
        statistics: Literal["batch", "running"],
        of: Literal["outliers", "id", "both"],
    ) -> None:
        self.objective: Objective = objective
        self.epsilon, self.steps, self.step, self.decay = epsilon, steps, step, decay
        self.random_start, self.of = random_start, of
        self.mode: Literal["train", "eval"] = "train" if statistics == "batch" else "eval"

    def __call__(self, images: Tensor, beside: Beside, generator: torch.Generator) -> OutlierImages:
        if not self.epsilon:
            return OutlierImages(images)
        id_images = None if self.of == "outliers" else self._changed(beside.images, -self.step, beside, generator)
        if self.of != "id":
            images = self._changed(images, self.step, beside, generator)
        return OutlierImages(images, id_images=id_images)

    def _changed(self, images: Tensor, step: float, beside: Beside, generator: torch.Generator) -> Tensor:
        start = None
        if self.random_start:
            shape = (len(images) * beside.world, *images.shape[1:])
            drawn = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)
            start = (2 * self.epsilon * drawn - self.epsilon)[beside.rank :: beside.world]
        gradient = score_gradient(beside.network, beside.classes, self.objective, self.mode)
        return sign_steps(
            images, gradient, epsilon=self.epsilon, steps=self.steps, step=step, decay=self.decay, start=start
        )
