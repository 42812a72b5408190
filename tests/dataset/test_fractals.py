"""Fractals as an image set."""

from __future__ import annotations

from typing import Any

import torch

from ood_lab.config.image_sets import image_set_config
from ood_lab.images.fractal import fractals
from ood_lab.task.build import build
from ood_lab.types import Images


def load(**changes: Any) -> Images:
    return build(image_set_config("fractals", "nowhere") | changes).load("ood")


def test_the_set_holds_the_pictures_of_its_seed_without_labels() -> None:
    images = load(count=7, native_side=16, seed=3)
    assert torch.equal(images.pixels, fractals(7, 16, 3))
    assert images.labels.tolist() == [-1] * 7


def test_the_global_seed_changes_nothing() -> None:
    first = load(count=2, native_side=8).pixels
    torch.manual_seed(99)
    assert torch.equal(load(count=2, native_side=8).pixels, first)
