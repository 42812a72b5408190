"""The embedded decoder: a small diffusion model in pixel space that was trained on the ID set."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch
from torch import Tensor

from ood_lab.config.ranges import NonNegativeFloat, PositiveInt
from ood_lab.decoder.base import Decoder
from ood_lab.diffusion.network import load_denoiser
from ood_lab.diffusion.sampling import sample, starting_noise
from ood_lab.errors import RunError


class Tiny(Decoder):
    """Takes an outlier in the place of the anchor on which the model is conditioned.

    Args:
        steps: of DDIM.
        guidance: see `ood_lab.diffusion.sampling.sample`.
        needs: also under "generator" the run that trains the model.

    Raises:
        RunError: the model was trained with other anchors.
    """

    caveat: ClassVar = "outlier images are of a small diffusion model trained on the ID set, not of Stable Diffusion"
    passes: ClassVar[tuple[str, ...]] = ("anchors", "outliers", "generator", "backbone", "protocol")

    def __init__(self, *, steps: PositiveInt, guidance: NonNegativeFloat, **options: Any) -> None:
        super().__init__(**options)
        self.steps, self.guidance = steps, guidance
        path = options["needs"]["generator"]
        self.network, about = load_denoiser(path)
        if self.network.shape.condition != self.anchors.shape[1] or tuple(json.loads(about["classes"])) != self.classes:
            raise RunError(
                f"{path} was trained for classes {about['classes']} and anchors of {self.network.shape.condition} "
                f"numbers; the outliers are of {', '.join(self.classes)}, with {self.anchors.shape[1]} numbers"
            )

    def to(self, device: torch.device) -> None:
        self.network.to(device)
        self.device = device

    @property
    def note(self) -> str:
        calls = self.count * self.steps * (1 if self.guidance == 1 else 2)
        return f"{self.count:,} images take {calls:,} evaluations of a small U-Net, {self.batch} images at a time"

    def decode(self, outliers_nD: Tensor, labels_n: Tensor, start: int) -> Tensor:
        shape = (3, self.network.shape.side, self.network.shape.side)
        noise = starting_noise(self.seed, start, start + len(outliers_nD), shape).to(self.device)
        return sample(self.network, outliers_nD.to(self.device), noise, steps=self.steps, guidance=self.guidance)
