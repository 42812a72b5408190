"""BigGAN at 32x32, trained adversarially on the images of an ID set (Brock et al. 2019)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_lab.biggan.networks import Discriminator, Generator
from ood_lab.config.ranges import NonNegativeInt, OpenFraction, PositiveFloat, PositiveInt
from ood_lab.generator.base import GeneratorTraining, move_average
from ood_lab.loss.hinge import discriminator_hinge, generator_hinge
from ood_lab.random import derive_seed


class BigGAN(GeneratorTraining):
    """A class-conditional generator against a projection discriminator, by the hinge loss.

    A step takes `discriminator_steps` equal parts of its ID images, each against as many made from fresh noise and
    classes, and moves the discriminator once for each; then the generator once. Real and made images pass the
    discriminator together. The generator stays in training mode throughout, so that its running statistics move in
    every one of these passes, as in the public PyTorch code. Kept is the moving average of its weights and buffers.

    Args:
        width: channels of every feature map; 256 in the CIFAR settings (4 x 64).
        noise: numbers of z ~ N(0, I).
        discriminator_steps: for each step of the generator.
        lr: of both networks; Adam.
        betas: of Adam.
        decay: of the moving average.
        decay_from: step until which the average is a copy.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        width: PositiveInt,
        noise: PositiveInt,
        discriminator_steps: PositiveInt,
        lr: PositiveFloat,
        betas: list[float],
        decay: OpenFraction,
        decay_from: NonNegativeInt,
        **options: Any,
    ) -> None:
        super().__init__(classes, **options)
        self.noise, self.discriminator_steps, self.lr = noise, discriminator_steps, lr
        self.betas, self.decay, self.decay_from = (betas[0], betas[1]), decay, decay_from
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "weights"))
            self.generator = Generator(len(classes), width, noise)
            self.discriminator = Discriminator(len(classes), width)
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()

    @property
    def averaged(self) -> nn.Module:
        return self.average

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        networks = (self.generator, self.discriminator)
        return [torch.optim.Adam(n.parameters(), self.lr, self.betas, eps=1e-8) for n in networks]

    def step(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> Mapping[str, Tensor]:
        ours, theirs = self.optimizers()  # type: ignore[attr-defined]
        self.discriminator.requires_grad_(True)
        apart = images.new_zeros(())
        parts = (values.tensor_split(self.discriminator_steps) for values in (images, labels))
        for real, classes in zip(*parts, strict=True):
            with torch.no_grad():
                made, asked = self._made(len(real), draw)
            scores = self.discriminator(torch.cat([real, made]), torch.cat([classes, asked]))
            loss = discriminator_hinge(*scores.split([len(real), len(made)]))
            theirs.zero_grad()
            loss.backward()
            theirs.optimizer.step()  # not through Lightning, which would count it as a step of the run
            apart += loss.detach() / self.discriminator_steps
        self.discriminator.requires_grad_(False)
        made, asked = self._made(-(-len(images) // self.discriminator_steps), draw)
        fooled = generator_hinge(self.discriminator(made, asked))
        ours.zero_grad()
        fooled.backward()
        ours.step()
        move_average(self.average, self.generator, self.decay if self.global_step > self.decay_from else 0)
        return {"discriminator": apart, "generator": fooled}

    def _made(self, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images from fresh noise, and the classes that were asked for."""
        noise = torch.randn(count, self.noise, generator=draw).to(self.device)
        asked = torch.randint(len(self.classes), (count,), generator=draw).to(self.device)
        return self.generator(noise, asked), asked
