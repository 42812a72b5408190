"""Fractals of iterated function systems: structured pictures without any natural object, from a seed.

A system is a set of contractive affine maps of the plane; playing the chaos game (a point is moved by one map after
the other, drawn at random) visits its attractor. Maps are drawn by their singular values, so that the attractor
neither shrinks to a point nor fills everything (Anderson & Farrell 2022, section 3); each map carries a colour, which
points take over by halves, as in fractal flames. PixMix (Hendrycks et al. 2022) mixes with such pictures.

Shape letters: N systems, K maps, P points, S side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ood_lab.random import generator as seeded

BLOCK = 100  # pictures drawn together: picture i does not depend on how many are asked for
MAPS = 8
SUPERSAMPLING = 2
POINTS_PER_PIXEL = 24
BURN_IN = 12
FILLED = (0.12, 0.95)  # shares of non-empty pixels between which a picture is kept


class Systems(NamedTuple):
    """Maps x -> matrices x + offsets [N, K, 2, 2] and [N, K, 2]; how often each is taken [N, K]; colours [N, K, 3]."""

    matrices: Tensor
    offsets: Tensor
    probabilities: Tensor
    colours: Tensor


def sample_systems(count: int, generator: torch.Generator) -> Systems:
    """Random systems of 2 to 8 maps.

    Of k maps, sigma_1 + 2 sigma_2 summed over the maps lies in (5 + k) / 2 .. (6 + k) / 2 (Anderson & Farrell, Eq. 4),
    with every singular value below 1. Maps are taken in proportion to how much area they keep, at least a little.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    maps = torch.randint(2, MAPS + 1, (count, 1), generator=generator)
    used = torch.arange(MAPS) < maps
    first, second = _singular_values(uniform(count, MAPS, 2), used, maps, uniform(count, 1))
    turn, tilt = uniform(2, count, MAPS) * 2 * math.pi
    flip = torch.where(uniform(count, MAPS) < 0.5, -1.0, 1.0)
    stretch = torch.diag_embed(torch.stack([first, second * flip], -1))
    matrices = _rotation(turn) @ stretch @ _rotation(tilt)
    offsets = uniform(count, MAPS, 2) * 2 - 1
    weight = (first * second).clamp(min=0.02) * used
    colours = _vivid(uniform(count, MAPS), 0.55 + 0.45 * uniform(count, MAPS), 0.6 + 0.4 * uniform(count, MAPS))
    return Systems(matrices, offsets, weight / weight.sum(1, keepdim=True), colours)


def _singular_values(draws: Tensor, used: Tensor, maps: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs sigma_1 >= sigma_2 below 1 whose weighted sum over the used maps is the drawn target."""
    ordered = (0.98 * draws).sort(-1, descending=True).values
    first, second = ordered[..., 0], ordered[..., 1]
    target = (5 + maps + place) / 2
    # Moving all values towards 0 or towards 0.98 reaches any target and keeps them in order.
    total = ((first + 2 * second) * used).sum(1, keepdim=True)
    most = 0.98 * 3 * maps
    down = (target / total).clamp(max=1)
    up = ((target - total) / (most - total)).clamp(0, 1)
    return tuple(torch.where(target < total, v * down, v + (0.98 - v) * up) for v in (first, second))  # type: ignore[return-value]


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def _vivid(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV to RGB, each in 0..1."""
    channels = []
    for n in (5, 3, 1):
        k = (n + 6 * hue) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, -1)


def chaos_game(systems: Systems, points: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points on the attractors [N, P * steps, 2], and of each a 1 and its colour [N, P * steps, 4].

    P points of each system walk at once; their first `BURN_IN` steps are left out.
    """
    count, maps = systems.probabilities.shape
    table = torch.cat([systems.matrices.flatten(2), systems.offsets, systems.colours], -1).flatten(0, 1)
    base = torch.arange(count)[:, None] * maps
    position, colour = torch.zeros(count, points, 2), torch.full((count, points, 3), 0.5)
    positions, weighted = torch.empty(count, steps, points, 2), torch.ones(count, steps, points, 4)
    for step in range(BURN_IN + steps):
        choice = torch.multinomial(systems.probabilities, points, replacement=True, generator=generator)
        a, b, c, d, e, f, *rgb = table[choice + base].unbind(-1)
        x, y = position.unbind(-1)
        position = torch.stack([a * x + b * y + e, c * x + d * y + f], -1)
        colour = (colour + torch.stack(rgb, -1)) / 2
        if step >= BURN_IN:
            positions[:, step - BURN_IN] = position
            weighted[:, step - BURN_IN, :, 1:] = colour
    return positions.flatten(1, 2), weighted.flatten(1, 2)


def render(positions: Tensor, weighted: Tensor, side: int, backgrounds: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 pictures [N, 3, S, S] and the share of pixels that any point reached [N].

    Each picture is framed by the middle 98 % of its points; brightness is the logarithm of how often a pixel was
    visited, colour the mean of the colours there.

    Args:
        weighted: of each point a 1, which counts it, and its colour [N, P, 4].
    """
    count, fine = len(positions), side * SUPERSAMPLING
    margins = torch.tensor([0.01, 0.99])
    sample = positions[:, :: max(1, positions.shape[1] // 500)]
    low, high = torch.quantile(sample, margins, dim=1)
    centre, extent = (low + high) / 2, (high - low).amax(1, keepdim=True).clamp(min=1e-6) * 1.08
    pixel = ((positions - centre[:, None]) / extent[:, None] + 0.5) * fine
    inside = ((pixel >= 0) & (pixel < fine)).all(-1)
    cell = pixel.long().clamp(0, fine - 1)
    index = (torch.arange(count)[:, None] * fine + cell[..., 1]) * fine + cell[..., 0]
    index.masked_fill_(~inside, count * fine * fine)  # one cell more, for what lies outside
    sums = torch.zeros(count * fine * fine + 1, 4).index_add_(0, index.flatten(), weighted.flatten(0, 1))
    sums = sums[:-1].view(count, fine, fine, 4).permute(0, 3, 1, 2)
    density, colour = sums[:, :1], sums[:, 1:] / sums[:, :1].clamp(min=1)
    bright = density.add(1).log()
    bright = (bright / bright.amax((2, 3), keepdim=True).clamp(min=1e-6)).sqrt()
    picture = F.avg_pool2d(bright * colour + (1 - bright) * backgrounds[:, :, None, None], SUPERSAMPLING)
    filled = (F.max_pool2d(density, SUPERSAMPLING) > 0).float().mean((1, 2, 3))
    return (picture * 255).round().clamp(0, 255).to(torch.uint8), filled


def fractals(count: int, side: int, seed: int) -> Tensor:
    """`count` pictures, uint8 [count, 3, side, side]; the first ones are the same whatever `count` is."""
    blocks = [block(number, side, seed) for number in range(-(-count // BLOCK))]
    return torch.cat(blocks)[:count]


def block(number: int, side: int, seed: int) -> Tensor:
    """The pictures number * BLOCK .. (number + 1) * BLOCK - 1 of a seed; sparse and solid ones are drawn again."""
    draw = seeded("fractals", seed, number)
    kept: list[Tensor] = []
    have = 0
    while have < BLOCK:
        pictures, filled = _draw(BLOCK - have, side, draw)
        good = pictures[(filled > FILLED[0]) & (filled < FILLED[1])]
        kept.append(good)
        have += len(good)
    return torch.cat(kept)


def _draw(count: int, side: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    systems = sample_systems(count, draw)
    points = 4 * side
    steps = max(1, POINTS_PER_PIXEL * side * side // points)
    positions, weighted = chaos_game(systems, points, steps, draw)
    dark = torch.rand(count, 3, generator=draw) * 0.25
    light = 0.75 + torch.rand(count, 3, generator=draw) * 0.25
    backgrounds = torch.where(torch.rand(count, 1, generator=draw) < 0.25, light, dark)
    return render(positions, weighted, side, backgrounds)
