"""A small diffusion model in pixel space, trained on the images of an ID set with its text anchors (Ho et al. 2020)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.config.affects import NOTHING
from ood_lab.config.ranges import Fraction, NonNegativeFloat, NonNegativeInt, OpenFraction, PositiveFloat, PositiveInt
from ood_lab.diffusion.network import Denoiser, Shape, described
from ood_lab.diffusion.sampling import STEPS, noise_schedule
from ood_lab.errors import RunError
from ood_lab.generator.base import GeneratorTraining, move_average
from ood_lab.random import derive_seed
from ood_lab.text.anchors import load_anchors


class Diffusion(GeneratorTraining):
    """Minimises |noise - e(x_t, t, Gamma(y))|^2 over images, steps and noise.

    The condition is left out of a share of the images, for guidance. Kept is the moving average of the weights.

    Args:
        side: of its images; those of the ID set are resized, with antialiasing.
        widths, blocks, attention, groups: see `ood_lab.diffusion.network.Shape`.
        unconditional: share of images without their condition.
        lr: of AdamW, with a linear warm-up of `warmup` steps.
        weight_decay: of AdamW.
        decay: of the moving average, reached by (1 + step) / (10 + step).
        needs: under "anchors" the run that makes them.

    Raises:
        RunError: anchors of another number of classes.
    """

    passes: ClassVar[tuple[str, ...]] = ("anchors",)

    def __init__(
        self,
        classes: Sequence[str],
        *,
        side: PositiveInt,
        widths: list[int],
        blocks: PositiveInt,
        attention: list[int] | None,
        groups: PositiveInt,
        unconditional: Fraction,
        lr: PositiveFloat,
        warmup: NonNegativeInt,
        weight_decay: NonNegativeFloat,
        decay: OpenFraction,
        needs: Annotated[dict[str, Any], NOTHING],
        **options: Any,
    ) -> None:
        super().__init__(classes, **options)
        anchors = load_anchors(needs["anchors"])
        if len(anchors) != len(classes):
            raise RunError(
                f"{needs['anchors']} holds {len(anchors)} anchors; expected one for each of {len(classes)} classes"
            )
        self.side, self.unconditional, self.lr, self.warmup = side, unconditional, lr, warmup
        self.weight_decay, self.decay = weight_decay, decay
        self.shape = Shape(side, widths, blocks, attention or (), groups, anchors.shape[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "weights"))
            self.network = Denoiser(self.shape)
        self.network.scale.fill_(anchors.square().mean().rsqrt())
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.register_buffer("anchors", anchors)
        self.register_buffer("kept", noise_schedule().alphas_cumprod)  # share of the image's variance at each step

    @property
    def averaged(self) -> nn.Module:
        return self.average

    @property
    def about(self) -> dict[str, str]:
        return {"network": described(self.shape)}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW(self.network.parameters(), self.lr, weight_decay=self.weight_decay)]

    def step(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> Mapping[str, Tensor]:
        optimizer = self.optimizers()
        if images.shape[-1] != self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        noise = torch.randn(images.shape, generator=draw).to(images)
        steps = torch.randint(STEPS, (len(images),), generator=draw).to(self.device)
        given = torch.rand(len(images), 1, generator=draw).to(images) >= self.unconditional
        kept = self.kept[steps].view(-1, 1, 1, 1)  # type: ignore[index]
        noisy = kept.sqrt() * images + (1 - kept).sqrt() * noise
        loss = F.mse_loss(self.network(noisy, steps, self.anchors[labels] * given), noise)  # type: ignore[index]
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self.lr * min(1.0, (self.global_step + 1) / max(1, self.warmup))
        optimizer.zero_grad()  # type: ignore[union-attr]
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimizer.step()  # type: ignore[union-attr]
        done = self.global_step
        move_average(self.average, self.network, min(self.decay, (1 + done) / (10 + done)))
        return {"noise": loss}
