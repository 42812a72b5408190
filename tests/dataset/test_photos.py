"""Crops of photographs: in colour, a function of their seed alone, cut from scikit-learn's two pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from ood_lab.config.image_sets import image_set_config
from ood_lab.dataset import photos
from ood_lab.task.build import build
from ood_lab.types import Images


def load(**changes: Any) -> Images:
    return build(image_set_config("photos", "nowhere") | changes).load("test")


def test_sizes_types_and_no_labels() -> None:
    images = load(count=7)
    assert images.pixels.shape == (7, 3, 32, 32)
    assert images.pixels.dtype == torch.uint8
    assert images.labels.tolist() == [-1] * 7


def test_the_configured_set_has_800_different_images_in_colour() -> None:
    pixels = load().pixels
    assert len(pixels) == 800
    assert len(pixels.flatten(1).unique(dim=0)) == 800
    assert not torch.equal(pixels[:, 0], pixels[:, 2])


def test_the_seed_decides_the_set_and_the_global_seed_does_not() -> None:
    first = load(count=5).pixels
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert torch.equal(load(count=5).pixels, first)
    assert not torch.equal(load(count=5, seed=1).pixels, first)


def test_crops_of_32_pixels_are_pieces_of_the_photographs(monkeypatch: Any) -> None:
    monkeypatch.setattr(photos, "SIDES", (32, 33))
    pictures = [np.asarray(Image.fromarray(a)) for a in load_sample_images().images]
    for index, image in enumerate(load(count=4).pixels):
        piece, picture = image.permute(1, 2, 0).numpy(), pictures[index % 2]
        corners = np.argwhere((picture[:-31, :-31] == piece[0, 0]).all(2) & (picture[31:, 31:] == piece[31, 31]).all(2))
        assert any(np.array_equal(picture[y : y + 32, x : x + 32], piece) for y, x in corners)
