"""ARES's Escape: ID images changed and mixed with pictures of another set, up to four times (Eq. 1; PixMix).

Shape letters: B images, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ood_lab.config.ranges import Fraction, PositiveFloat, PositiveInt
from ood_lab.images import operations as ops
from ood_lab.mixing.base import Mixing
from ood_lab.random import Draws, beta, uniform


class Operation(NamedTuple):
    """An operation, and what it is given for a level u in [0, 10], a sign -1 or 1 [B] and the images' side."""

    change: Callable[..., Tensor]
    strength: Callable[[Tensor, Tensor, int], Tensor] | None = None


# PixMix's, with its strengths: whole numbers are cut, as its code does, not rounded.
GEOMETRIC_AND_TONE = (
    Operation(ops.autocontrast),
    Operation(ops.equalize),
    Operation(ops.posterize, lambda u, *_: 4 - (0.4 * u).floor()),
    Operation(ops.rotate, lambda u, sign, _: sign * (3 * u).floor()),
    Operation(ops.solarize, lambda u, *_: 256 - (25.6 * u).floor()),
    Operation(ops.shear_x, lambda u, sign, _: 0.03 * sign * u),
    Operation(ops.shear_y, lambda u, sign, _: 0.03 * sign * u),
    Operation(ops.translate_x, lambda u, sign, side: sign * (u * (side / 3) / 10).floor()),
    Operation(ops.translate_y, lambda u, sign, side: sign * (u * (side / 3) / 10).floor()),
)
COLOUR = tuple(
    Operation(change, lambda u, *_: 0.1 + 0.18 * u)  # weaker, never stronger: .12 to .64 at severity 3
    for change in (ops.colour, ops.contrast, ops.brightness, ops.sharpness)
)
LEAST_LEVEL = 0.1


def blend(images: Tensor, pictures: Tensor, share_B: Tensor) -> Tensor:
    """l x + (1 - l) x_fractal (ARES, Eq. 1)."""
    return torch.lerp(pictures, images, share_B.view(-1, 1, 1, 1).to(images.dtype))


def pixmix(images: Tensor, pictures: Tensor, a_B: Tensor, b_B: Tensor, adds_B: Tensor) -> Tensor:
    """PixMix's mixing: a x + b y on [-1, 1], or x^a y^b on [0, 2], cut to [0, 1].

    Args:
        a_B, b_B: of each image.
        adds_B: whether it is added or multiplied.
    """
    a, b = (values.view(-1, 1, 1, 1).to(images.dtype) for values in (a_B, b_B))
    added = (a * (2 * images - 1) + b * (2 * pictures - 1) + 1) / 2
    multiplied = (2 * images) ** a * (2 * pictures).clamp(min=1e-37) ** b / 2
    return torch.where(adds_B.view(-1, 1, 1, 1), added, multiplied).clamp_(0, 1)


def crops(pictures: Tensor, which_B: Tensor, corner_B2: Tensor, side: int) -> Tensor:
    """A square of each chosen picture, float [B, 3, side, side] in [0, 1].

    Args:
        pictures: uint8 [N, 3, P, P].
        corner_B2: where it lies, in [0, 1).
    """
    room = pictures.shape[-1] - side + 1
    top, left = (corner_B2 * room).long().unbind(1)
    at = torch.arange(side, device=pictures.device)
    taken = pictures[which_B[:, None, None], :, (top[:, None] + at)[:, :, None], (left[:, None] + at)[:, None, :]]
    return taken.permute(0, 3, 1, 2).float().div_(255)  # from [B, side, side, 3]


class Escape(Mixing):
    """One to `rounds` rounds, each an operation or a mixing with the image's picture.

    One round of each image mixes in any case (ARES, section 3.3.1); the others do with probability one half. PixMix
    begins every round at the original image; ARES's text changes the image itself in each, as here.

    Args:
        rounds: the most; their number is uniform from 1 on.
        mix: Eq. 1's "blend", or "pixmix": sums or products, as in PixMix's code, which the paper cites.
        alpha: alpha_1: of the blend's share l ~ Beta(alpha_1, alpha_1); of PixMix's coefficients.
        shares: one l for each "image" and round, or one for the whole "step".
        p_clean: probability that an image is left as it is. The paper trains on no such image.
        severity: the highest level of an operation, of 10.
        colour: whether PixMix's four operations on colours are among them.
    """

    def __init__(
        self,
        *,
        rounds: PositiveInt,
        mix: Literal["blend", "pixmix"],
        alpha: PositiveFloat,
        shares: Literal["image", "step"],
        p_clean: Fraction,
        severity: PositiveFloat,
        colour: bool,
    ) -> None:
        self.rounds, self.mix, self.alpha, self.shares = rounds, mix, alpha, shares
        self.p_clean, self.severity = p_clean, severity
        self.operations = GEOMETRIC_AND_TONE + (COLOUR if colour else ())

    def draw(self, rows: int, pictures: int, generator: torch.Generator) -> Draws:
        source, shape = generator.device, (rows, self.rounds)
        draws: Draws = {}

        def numbers() -> Tensor:
            return torch.rand(shape, generator=generator, device=source)

        last = torch.randint(1, self.rounds + 1, (rows, 1), generator=generator, device=source)
        forced = (torch.rand(rows, 1, generator=generator, device=source) * last).long()
        place = torch.arange(self.rounds, device=source)
        draws["mixed"] = (numbers() < 0.5) | (place == forced)
        draws["active"] = (place < last) & (uniform(rows, 0, 1, generator) >= self.p_clean)[:, None]
        draws["operation"] = torch.randint(len(self.operations), shape, generator=generator, device=source)
        draws["level"] = LEAST_LEVEL + (self.severity - LEAST_LEVEL) * numbers()
        draws["sign"] = (numbers() < 0.5).float() * 2 - 1
        draws["picture"] = torch.randint(pictures, (rows,), generator=generator, device=source)
        draws["corner"] = torch.rand(rows, 2, generator=generator, device=source)
        if self.mix == "blend":
            share = beta(self.alpha, self.alpha, shape if self.shares == "image" else (1, 1), generator)
            draws["share"] = share.float().expand(shape)
        else:
            draws |= self._coefficients(shape, generator)
        return draws

    def _coefficients(self, shape: tuple[int, int], generator: torch.Generator) -> Draws:
        """PixMix's: means 3/4 and 1/4 at beta 3, or 1 + and - as much."""
        source = generator.device
        high, low = beta(self.alpha, 1, shape, generator), beta(1, self.alpha, shape, generator)
        above, below = beta(1, self.alpha, shape, generator), beta(1, self.alpha, shape, generator)
        within = torch.rand(shape, generator=generator, device=source) < 0.5
        return {
            "a": torch.where(within, high, 1 + above).float(),
            "b": torch.where(within, low, -below).float(),
            "adds": torch.rand(shape, generator=generator, device=source) < 0.5,
        }

    def apply(self, images: Tensor, pictures: Tensor, draws: Draws) -> Tensor:
        images = images.clone()
        d = {name: values.to(images.device) for name, values in draws.items()}
        pictures = crops(pictures, d["picture"], d["corner"], images.shape[-1])
        for number in range(self.rounds):
            # Which rows are meant is known on the host, where the choices were made: nothing waits for a device.
            active, mixed = draws["active"][:, number], draws["mixed"][:, number]
            mixing = (active & mixed).nonzero().squeeze(1).to(images.device)
            if self.mix == "blend":
                images[mixing] = blend(images[mixing], pictures[mixing], d["share"][mixing, number])
            else:
                how = (d[name][mixing, number] for name in ("a", "b", "adds"))
                images[mixing] = pixmix(images[mixing], pictures[mixing], *how)
            for which, operation in enumerate(self.operations):
                changing = active & ~mixed & (draws["operation"][:, number] == which)
                rows = changing.nonzero().squeeze(1).to(images.device)
                if not len(rows):
                    continue
                if operation.strength is None:
                    images[rows] = operation.change(images[rows])
                else:
                    level, sign = d["level"][rows, number], d["sign"][rows, number]
                    images[rows] = operation.change(images[rows], operation.strength(level, sign, images.shape[-1]))
        return images
