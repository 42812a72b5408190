"""Drawing images from a denoising network, each from noise of its own number."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from ood_lab.diffusion.network import Denoiser
from ood_lab.random import generator

STEPS = 1000  # of the diffusion


def noise_schedule() -> Any:
    """By which images are made noisy: the squared cosine (Nichol & Dhariwal 2021)."""
    return DDPMScheduler(num_train_timesteps=STEPS, beta_schedule="squaredcos_cap_v2")


def starting_noise(seed: int, start: int, stop: int, shape: tuple[int, ...]) -> Tensor:
    """N(0, I) for the images start .. stop - 1, each from a generator of its own."""
    return torch.stack([torch.randn(shape, generator=generator(seed, "image", n)) for n in range(start, stop)])


@torch.no_grad()
def sample(network: Denoiser, condition_BD: Tensor, noise_BCSS: Tensor, *, steps: int, guidance: float) -> Tensor:
    """uint8 [B, 3, S, S] by DDIM without further noise (Song et al. 2021).

    Args:
        condition_BD: what each image is conditioned on.
        noise_BCSS: where each begins.
        steps: of the sampler, evenly spaced from the last one of the diffusion.
        guidance: w in e_none + w (e_condition - e_none); 1 takes the conditioned one alone.
    """
    schedule: Any = DDIMScheduler.from_config(noise_schedule().config, timestep_spacing="trailing")
    schedule.set_timesteps(steps)
    condition = condition_BD.to(noise_BCSS)
    if guidance != 1:
        condition = torch.cat([torch.zeros_like(condition), condition])
    x = noise_BCSS
    for moment in schedule.timesteps.tolist():
        inputs = x if guidance == 1 else torch.cat([x, x])
        moments = torch.full((len(inputs),), moment, device=x.device)
        predicted = network(inputs, moments, condition)
        if guidance != 1:
            without, given = predicted.chunk(2)
            predicted = without + guidance * (given - without)
        x = schedule.step(predicted, moment, x, eta=0.0).prev_sample
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
