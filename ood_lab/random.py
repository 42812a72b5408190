"""Random streams that are a function of what they are for: (seed, purpose, epoch, step), never of what ran before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

# One tensor [B, ...] for each random choice: row b's part of all of them is what happens to image b. So the rows of a
# batch can be drawn together and applied apart, on several devices, with the same outcome.
Draws = dict[str, Tensor]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and names."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def beta(a: float, b: float, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws from Beta(a, b): the share of the first of two gamma variables, in float64, right for a and b from 0.01."""
    # torch's own gamma takes a generator only here.
    alphas = [torch.full(tuple(shape), value, dtype=torch.float64, device=generator.device) for value in (a, b)]
    first, second = torch._standard_gamma(torch.stack(alphas), generator=generator)
    return first / (first + second)


def uniform(rows: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """`rows` draws from U(low, high), made where the generator lives."""
    return torch.rand(rows, generator=generator, device=generator.device) * (high - low) + low


def share(draws: Draws, rank: int, world: int) -> Draws:
    """What rank `rank` of `world` applies: every `world`-th row."""
    return {name: values[rank::world] for name, values in draws.items()}
