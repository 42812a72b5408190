"""A small denoising network in pixel space, conditioned on a vector. Shape letters: B images, D numbers, S side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ood_lab.errors import RunError


@dataclass(frozen=True)
class Shape:
    """What a network must be built with to take stored weights.

    Args:
        side: of its images.
        widths: channels at each resolution, each half the one before.
        blocks: at each resolution.
        attention: resolutions with self-attention, by their place among `widths`.
        groups: of its normalisations, which divide every width.
        condition: D of the vector.
    """

    side: int
    widths: Sequence[int]
    blocks: int
    attention: Sequence[int]
    groups: int
    condition: int


class Denoiser(nn.Module):
    """diffusers' U-Net; a linear layer brings the condition to its time embedding.

    The condition is brought to unit variance by `scale`, which is kept with the weights; zero stands for none.
    """

    scale: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        levels = range(len(shape.widths))
        self.unet: Any = UNet2DModel(
            sample_size=shape.side,
            in_channels=3,
            out_channels=3,
            layers_per_block=shape.blocks,
            block_out_channels=tuple(shape.widths),
            down_block_types=tuple("AttnDownBlock2D" if i in shape.attention else "DownBlock2D" for i in levels),
            up_block_types=tuple("AttnUpBlock2D" if i in shape.attention else "UpBlock2D" for i in reversed(levels)),
            class_embed_type="identity",
            norm_num_groups=shape.groups,
            attention_head_dim=8,
        )
        self.condition = nn.Linear(shape.condition, 4 * shape.widths[0])
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x_BCSS: Tensor, steps_B: Tensor, condition_BD: Tensor) -> Tensor:
        """The noise in x at these diffusion steps [B, 3, S, S]."""
        embedded = self.condition(condition_BD * self.scale)
        noise: Tensor = self.unet(x_BCSS, steps_B, class_labels=embedded).sample
        return noise


def described(shape: Shape) -> str:
    """A shape as it is stored beside weights."""
    return json.dumps(asdict(shape))


def load_denoiser(path: Path) -> tuple[Denoiser, dict[str, str]]:
    """The network of a file that `generator=diffusion` wrote, in evaluation mode, and what else is stored beside it.

    Raises:
        RunError: it is no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        network = Denoiser(Shape(**json.loads(about["network"])))
        network.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, RuntimeError, TypeError) as error:
        raise RunError(
            f"{path} holds no diffusion model of this program ({str(error).splitlines()[0]}); train one with "
            "task=train_generator generator=diffusion"
        ) from None
    return network.eval().requires_grad_(False), about
