"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels in 17 grey levels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ood_lab.dataset.base import ImageSet, Split, stack, stratified
from ood_lab.random import generator
from ood_lab.types import Images

VAL_PER_CLASS, TEST_PER_CLASS = 15, 45


def enlarge(levels: np.ndarray) -> Tensor:
    """8x8 images with levels 0..16 as uint8 [N, 3, 32, 32], bicubic, the way every set in this style is drawn."""
    pixels = np.rint(levels.astype(np.float64) * 255 / 16).astype(np.uint8)
    return stack(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC) for image in pixels)


class Digits(ImageSet):
    """1,197 training, 150 validation and 450 test images, stratified by class, the same for every seed."""

    def load(self, split: Split) -> Images:
        from sklearn.datasets import load_digits

        data = load_digits()
        labels = torch.as_tensor(data.target, dtype=torch.int64)
        draw = generator("digits", "split")
        held_out = stratified(labels, VAL_PER_CLASS + TEST_PER_CLASS, draw)
        val = held_out[stratified(labels[held_out], VAL_PER_CLASS, draw)]
        keep = torch.ones(len(labels), dtype=torch.bool)
        if split == "train":
            keep[held_out] = False
        elif split == "val":
            keep[:] = False
            keep[val] = True
        else:
            keep[:] = False
            keep[held_out] = True
            keep[val] = False
        return Images(enlarge(data.images[keep.numpy()]), labels[keep])
