"""Letters drawn from fonts in the style of the digits: near-OOD for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ood_lab.config.ranges import NonNegativeInt, PositiveInt
from ood_lab.dataset.base import ImageSet, Split, unlabelled
from ood_lab.dataset.digits import enlarge
from ood_lab.types import Images

# Without letters that a hand also writes as a digit (O, o, I, l, Z, z, S, s, b, g, q, B).
ALPHABET = "ACDEFGHJKLMNPQRTUVWXYacdefhijkmnprtuvwxy"
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Italic.ttf")


@dataclass(kw_only=True)
class Letters(ImageSet):
    """Random letters, fonts and small rotations at 32x32, averaged over 4x4 blocks to 17 levels, then enlarged as the
    digits are. (The digits themselves were made by counting set pixels in 4x4 blocks.)

    Args:
        count: images.
        seed: of the draws; the set does not depend on a run's seed.
    """

    count: PositiveInt
    seed: NonNegativeInt

    def load(self, split: Split) -> Images:
        from matplotlib import get_data_path

        random = np.random.default_rng(self.seed)
        fonts = [ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{font}", 30) for font in FONTS]
        levels = np.stack([self._draw(fonts, random) for _ in range(self.count)])
        return unlabelled(enlarge(levels))

    @staticmethod
    def _draw(fonts: list[ImageFont.FreeTypeFont], random: np.random.Generator) -> np.ndarray:
        letter, font = random.choice(list(ALPHABET)), fonts[random.integers(len(fonts))]
        canvas = Image.new("L", (64, 64))
        ImageDraw.Draw(canvas).text((32, 32), letter, fill=255, font=font, anchor="mm")
        canvas = canvas.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR)
        box = canvas.getbbox() or (16, 16, 48, 48)
        ink = canvas.crop(box)
        # The digits fill the height of their box; so do the letters.
        width = min(32, max(8, round(ink.width * 32 / ink.height)))
        ink = ink.resize((width, 32), Image.Resampling.BILINEAR)
        square = Image.new("L", (32, 32))
        square.paste(ink, ((32 - width) // 2, 0))
        blocks = (np.asarray(square) > 127).reshape(8, 4, 8, 4)
        return blocks.sum((1, 3))
