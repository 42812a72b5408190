"""Images of a GAN that learns beside the classifier (Lee et al. 2018). Shape letters: B ID images, K made, S side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.config.ranges import NonNegativeFloat, OpenFraction, PositiveFloat, PositiveInt
from ood_lab.dcgan import Discriminator, Generator, doublings
from ood_lab.errors import RequestError
from ood_lab.image_source import ImageSource
from ood_lab.loss.adversarial import discriminator_loss, generator_loss
from ood_lab.loss.outlier_exposure import outlier_exposure
from ood_lab.network import Network


class GAN(ImageSource):
    """A DCGAN whose generator is also drawn to where the classifier is uncertain.

    A step in which the term on outliers takes part, as in the authors' code: the discriminator learns to tell the ID
    images from as many made ones; the generator, with the same noise, learns -log D(G(z)) + `uncertainty`
    KL(U || p(y | G(z))), where p is the classifier in training mode, which stays as it is; then outliers are made from
    fresh noise. Both networks work in float32, on images normalised as the classifier's.

    Departs from the code: that has neither normalisation nor augmentation of the ID images, and a classifier without
    batch normalisation. On several devices each plays the same game with the ID images of all.

    Args:
        noise: numbers of z ~ N(0, I).
        width: channels of the 4x4 feature maps.
        side: S, of the images that are made; other ID images are resized, antialiased, for the discriminator, and made
            images bilinearly for the classifier.
        uncertainty: beta of the generator; that of the classifier is the weight of the outlier term.
        lr: of both networks, by Adam; it follows the classifier's schedule.
        betas: of Adam.

    Raises:
        RequestError: a side that doubling 4 pixels does not give.
    """

    def __init__(
        self,
        *,
        noise: PositiveInt = 100,
        width: PositiveInt = 512,
        side: PositiveInt = 32,
        uncertainty: NonNegativeFloat = 0.1,
        lr: PositiveFloat = 2e-4,
        betas: Sequence[OpenFraction] = (0.5, 0.999),
    ) -> None:
        super().__init__()
        try:
            doublings(side)
        except ValueError as error:
            raise RequestError(f"synthesizer.{error}") from None
        if len(betas) != 2:
            raise RequestError(f"synthesizer.betas={list(betas)}: expected two numbers between 0 and 1")
        self.noise, self.side, self.uncertainty, self.lr = noise, side, uncertainty, lr
        self.generator, self.discriminator = Generator(noise, width, side), Discriminator(width, side)
        for name, network in (("discriminator", self.discriminator), ("generator", self.generator)):
            self.optimizers[name] = torch.optim.Adam(network.parameters(), lr, (betas[0], betas[1]))

    def learn(self, images_B: Tensor, network: Network, rate: float, draw: torch.Generator) -> Mapping[str, Tensor]:
        real, shape = self._small(images_B), images_B.shape[-2:]
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = self.lr * rate
        noise = self._noise(len(images_B), draw)
        with torch.autocast(images_B.device.type, enabled=False):
            made = self._made(noise)
            apart = discriminator_loss(self.discriminator(real), self.discriminator(made.detach()))
            self._step("discriminator", apart)
            fooled = generator_loss(self.discriminator(made))
        uncertain = outlier_exposure(network(_resized(made, shape), mode="train", grad=True).logits)
        self._step("generator", fooled + self.uncertainty * uncertain)
        return {"discriminator": apart.detach(), "generator": fooled.detach(), "uncertainty": uncertain.detach()}

    @torch.no_grad()
    def make(self, count: int, shape: Sequence[int], draw: torch.Generator) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return _resized(self._made(self._noise(count, draw)), shape)

    def _noise(self, count: int, draw: torch.Generator) -> Tensor:
        return torch.randn(count, self.noise, generator=draw, device=draw.device).to(self.device)

    def _made(self, noise_KZ: Tensor) -> Tensor:
        """Normalised images [K, 3, S, S]."""
        return self.normalised(self.generator(noise_KZ))

    def _small(self, images: Tensor) -> Tensor:
        """ID images of the side that the discriminator takes."""
        same = images.shape[-1] == images.shape[-2] == self.side
        return images if same else F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)

    def _step(self, name: str, loss: Tensor) -> None:
        """Move one network; no other gets a gradient."""
        optimizer = self.optimizers[name]
        own = optimizer.param_groups[0]["params"]
        for parameter, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()


def _resized(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Made images of the side that the classifier takes."""
    same = list(images.shape[-2:]) == list(shape)
    return images if same else F.interpolate(images, tuple(shape), mode="bilinear")
