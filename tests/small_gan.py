"""A small GAN in float32, and what tests compare of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ood_lab.synthesizer.gan import GAN

Z, WIDTH, SIDE, LR, BETAS = 5, 4, 8, 0.01, (0.5, 0.9)
MEAN, STD = [0.3, 0.5, 0.6], [0.2, 0.25, 0.5]
DROPOUT, CLASSES = 0.3, 3
RUN = [
    "method=gan", "backbone=narrow", "backbone.width=4", "dataset.recipe.resize=16", "dataset.recipe.side=16",
    "synthesizer.width=8", "synthesizer.side=8", "trainer.batch_size=300", "trainer.max_epochs=2", "trainer.threads=1",
    "trainer.log_every_n_steps=1",
]  # fmt: skip


def gan(**options: Any) -> GAN:
    torch.manual_seed(1)
    return GAN(**{"noise": Z, "width": WIDTH, "side": SIDE, "uncertainty": 0.7, "lr": LR, "betas": BETAS, **options})


def draws(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def float64() -> Iterator[None]:
    """Noise is drawn in the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
